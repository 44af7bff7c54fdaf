"""A stand-in for Vercel Blob, which has no local server: its API as `@vercel/blob` 2.8 speaks it.

The API is plain HTTP (``VERCEL_BLOB_API_URL``). The SDK reads private blobs from
``https://<store>.private.blob.vercel-storage.com`` and nowhere else: the server is therefore also
the client's HTTPS proxy, and answers for that host with a certificate of its own authority. Neither
the SDK nor a project's code knows of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import ssl
import tempfile
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

import trustme

STORE, SECRET = "Kd3xQ0aZ9vBlobSt", "f3Lq8sWzUj2Rt5Yn"
TOKEN = f"vercel_blob_rw_{STORE}_{SECRET}"
SUFFIX = ".private.blob.vercel-storage.com"
VERSION = "12"
SMALLEST_PART = 5 * 2**20  # as Vercel documents it; the last one may be smaller
MOST_LISTED = 1000
BLOCK = 2**18


class Refused(Exception):
    """An error of the API: status, code and message."""

    def __init__(self, status: int, code: str, message: str = "") -> None:
        super().__init__(message or code)
        self.status, self.code = status, code


@dataclass(frozen=True)
class Blob:
    """A stored blob; its bytes are in a file."""

    pathname: str
    file: Path
    content_type: str

    @property
    def url(self) -> str:
        return f"https://{STORE.lower()}{SUFFIX}/{quote(self.pathname)}"

    def described(self) -> dict[str, Any]:
        """As `put`, `head` and `list` describe it; etag and time are not what a test looks at."""
        return {
            "url": self.url,
            "downloadUrl": f"{self.url}?download=1",
            "pathname": self.pathname,
            "size": self.file.stat().st_size,
            "contentType": self.content_type,
            "contentDisposition": f'inline; filename="{self.pathname.rsplit("/", 1)[-1]}"',
            "cacheControl": "public, max-age=2592000",
            "uploadedAt": "2026-01-01T00:00:00.000Z",
            "etag": f'"{self.file.name}"',
        }


@dataclass(frozen=True)
class Upload:
    """A multipart upload that has not been completed."""

    pathname: str
    content_type: str
    parts: dict[int, Path] = field(default_factory=dict)


@dataclass
class BlobServer:
    """One private store. What a test may set comes first."""

    folder: Path
    failing_part: int = 0  # this part of every upload is refused as a broken service refuses it
    page: int = MOST_LISTED  # how many blobs a listing holds at most
    stalled: threading.Event | None = None  # nothing sent is answered; set it to let go
    blobs: dict[str, Blob] = field(default_factory=dict)
    uploads: dict[str, Upload] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)  # method, path and query, in order
    port: int = 0
    tls: ssl.SSLContext = field(default_factory=lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))

    @property
    def env(self) -> dict[str, str]:
        """The variables of a project that uses this store."""
        origin = f"http://127.0.0.1:{self.port}"
        return {
            "BLOB_READ_WRITE_TOKEN": TOKEN,
            "VERCEL_BLOB_API_URL": origin,
            "VERCEL_BLOB_RETRIES": "0",
            # Node's own: https goes through the proxy, and trusts what it shows.
            "NODE_USE_ENV_PROXY": "1",
            "HTTPS_PROXY": origin,
            "NO_PROXY": "127.0.0.1,localhost",
            "NODE_EXTRA_CA_CERTS": str(self.folder / "authority.pem"),
        }

    def file(self) -> Path:
        return self.folder / uuid.uuid4().hex


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    through = ""  # the host that a client's tunnel leads to

    @property
    def store(self) -> BlobServer:
        return self.server.store

    def log_message(self, *_: object) -> None:
        pass

    def do_CONNECT(self) -> None:
        self.through = self.path.partition(":")[0].lower()
        self.send_response(200)
        self.end_headers()
        self.connection = self.store.tls.wrap_socket(self.connection, server_side=True)
        self.rfile = self.connection.makefile("rb", -1)
        self.wfile = self.connection.makefile("wb")
        self.close_connection = False

    def do_GET(self) -> None:
        if self.through:
            self.serve()
        else:
            self.answer()

    def do_PUT(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer()

    def finish(self) -> None:
        with contextlib.suppress(OSError):
            super().finish()
        with contextlib.suppress(OSError):
            self.connection.close()

    # -- the API

    def answer(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        self.store.asked.append(f"{self.command} {self.path}")
        body = self.store.file()
        try:
            self.receive(body)
            self.authorize()
            if self.command != "GET" and self.store.stalled:
                self.store.stalled.wait(300)
                raise ConnectionError
            status, said = 200, self.act(self.command, url.path or "/", query, body)
        except Refused as error:
            status, said = error.status, {"error": {"code": error.code, "message": str(error)}}
        except (ConnectionError, ssl.SSLError):
            self.close_connection = True  # the client is gone, and what it sent with it
            return
        finally:
            body.unlink(missing_ok=True)
        self.reply(status, json.dumps(said).encode())

    def receive(self, file: Path) -> None:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            raise Refused(411, "bad_request", "the length must be known")
        left = int(self.headers.get("Content-Length", 0))
        with file.open("wb") as target:
            while left:
                if not (block := self.rfile.read(min(left, BLOCK))):
                    raise ConnectionError
                target.write(block)
                left -= len(block)

    def authorize(self) -> None:
        if self.headers.get("x-api-version") != VERSION:
            raise Refused(400, "bad_request", f"x-api-version must be {VERSION}")
        token = re.fullmatch(
            r"Bearer vercel_blob_rw_([A-Za-z0-9]+)_([A-Za-z0-9]+)",
            self.headers.get("Authorization", ""),
        )
        if not token:
            raise Refused(403, "forbidden")
        if token[1] != STORE:
            raise Refused(404, "store_not_found")
        if token[2] != SECRET:
            raise Refused(403, "forbidden")

    def act(self, method: str, path: str, query: dict[str, str], body: Path) -> Any:
        match method, path:
            case "PUT", "/":
                return self.keep(query["pathname"], body, self.content_type())
            case "POST", "/mpu":
                return self.multipart(query["pathname"], body)
            case "POST", "/delete":
                for url in json.loads(body.read_bytes())["urls"]:
                    name = unquote(urlsplit(url).path).removeprefix("/")
                    if blob := self.store.blobs.pop(name, None):
                        blob.file.unlink()
                return None
            case "GET", "/" if "url" in query:
                name = unquote(urlsplit(query["url"]).path).removeprefix("/")
                if name not in self.store.blobs:
                    raise Refused(404, "not_found")
                return self.store.blobs[name].described()
            case "GET", "/":
                return self.listed(query)
        raise Refused(404, "bad_request", f"there is no {method} {path}")

    def content_type(self) -> str:
        return self.headers.get("x-content-type", "application/octet-stream")

    def keep(self, pathname: str, body: Path, content_type: str) -> dict[str, Any]:
        self.writable(pathname)
        if self.headers.get("x-add-random-suffix") == "1":
            stem, dot, end = pathname.rpartition(".")
            pathname = f"{stem or end}-{uuid.uuid4().hex}{dot}{end if dot else ''}"
        old = self.store.blobs.get(pathname)
        blob = Blob(pathname, body.rename(self.store.file()), content_type)
        self.store.blobs[pathname] = blob
        if old:
            old.file.unlink()
        return blob.described()

    def writable(self, pathname: str) -> None:
        if self.headers.get("x-vercel-blob-access") != "private":
            raise Refused(400, "bad_request", "Cannot use public access on a private store")
        suffixed = self.headers.get("x-add-random-suffix") == "1"
        overwrite = self.headers.get("x-allow-overwrite") == "1"
        if pathname in self.store.blobs and not suffixed and not overwrite:
            raise Refused(
                400,
                "bad_request",
                "This blob already exists, use `allowOverwrite: true` if you want to overwrite it. "
                "Or `addRandomSuffix: true` to generate a unique filename.",
            )

    def multipart(self, pathname: str, body: Path) -> dict[str, Any]:
        action = self.headers.get("x-mpu-action")
        if action == "create":
            self.writable(pathname)
            name = uuid.uuid4().hex
            self.store.uploads[name] = Upload(pathname, self.content_type())
            return {"key": pathname, "uploadId": name}
        name = self.headers.get("x-mpu-upload-id", "")
        upload = self.store.uploads.get(name)
        if not upload or unquote(self.headers.get("x-mpu-key", "")) != upload.pathname != pathname:
            raise Refused(404, "not_found")
        if action == "upload":
            number = int(self.headers["x-mpu-part-number"])
            if number == self.store.failing_part:
                raise Refused(503, "service_unavailable")
            upload.parts[number] = body.rename(self.store.file())
            return {"etag": hashlib.md5(f"{name}/{number}".encode()).hexdigest()}
        if action == "complete":
            self.complete(name, upload, json.loads(body.read_bytes()), body)
            return self.keep(pathname, body, upload.content_type)
        raise Refused(400, "bad_request", "x-mpu-action must be create, upload or complete")

    def complete(self, name: str, upload: Upload, parts: list[dict[str, Any]], body: Path) -> None:
        """Join the parts in `body` by number: the SDK names them in the order they were sent."""
        parts = sorted(parts, key=lambda part: part["partNumber"])
        numbers = [part["partNumber"] for part in parts]
        etags = [hashlib.md5(f"{name}/{number}".encode()).hexdigest() for number in numbers]
        files = [upload.parts.get(number) for number in numbers]
        if not parts or len(set(numbers)) < len(numbers) or None in files:
            raise Refused(400, "bad_request", "Invalid parts")
        if etags != [part["etag"] for part in parts]:
            raise Refused(400, "bad_request", "Invalid part etag")
        known = [file for file in files if file]
        if any(file.stat().st_size < SMALLEST_PART for file in known[:-1]):
            raise Refused(400, "bad_request", "A part is smaller than 5 MB")
        with body.open("wb") as whole:
            for file in known:
                with file.open("rb") as part:
                    shutil.copyfileobj(part, whole)
                file.unlink()
        del self.store.uploads[name]

    def listed(self, query: dict[str, str]) -> dict[str, Any]:
        limit = min(int(query.get("limit", MOST_LISTED)), self.store.page)
        prefix, after = query.get("prefix", ""), query.get("cursor", "")
        names = sorted(n for n in self.store.blobs if n.startswith(prefix) and n > after)
        page, more = names[:limit], len(names) > limit
        blobs = [self.store.blobs[name].described() for name in page]
        return {"blobs": blobs, "hasMore": more, **({"cursor": page[-1]} if more else {})}

    # -- the store's own host, for reading

    def serve(self) -> None:
        self.store.asked.append(f"GET https://{self.through}{self.path}")
        blob = self.store.blobs.get(unquote(urlsplit(self.path).path).removeprefix("/"))
        if self.through != f"{STORE.lower()}{SUFFIX}":
            return self.reply(404, b"store not found")
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.reply(403, b"Forbidden")
        if blob is None:
            return self.reply(404, b"Blob not found")
        size = blob.file.stat().st_size
        first, last, status = 0, size - 1, 200
        if span := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last, status = int(span[1]), min(int(span[2] or last), last), 206
            if first > last:
                return self.reply(416, b"")
        self.send_response(status)
        self.send_header("Content-Type", blob.content_type)
        self.send_header("Content-Length", str(last - first + 1))
        if status == 206:
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.end_headers()
        left = last - first + 1
        with blob.file.open("rb") as source:
            source.seek(first)
            while left:
                block = source.read(min(left, BLOCK))
                self.wfile.write(block)
                left -= len(block)
        return None

    def reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    store: BlobServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is what some tests are about."""


@contextlib.contextmanager
def blob_server() -> Iterator[BlobServer]:
    """The server on a free port of this machine, in threads of this process."""
    with tempfile.TemporaryDirectory(prefix="blob-") as name:
        store = BlobServer(Path(name))
        authority = trustme.CA()
        authority.cert_pem.write_to_path(store.folder / "authority.pem")
        authority.issue_cert(f"*{SUFFIX}").configure_cert(store.tls)
        server = _Server(("127.0.0.1", 0), Handler)
        server.store = store
        store.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield store
        finally:
            server.shutdown()
            server.server_close()
