"""A real S3 server, and servers of outputs that behave as badly as one needs."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hmac
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx

from tests.node import NODE, packages
from tests.rendering import BIN, clean_env, free_port

KEY, SECRET, BUCKET = "access-key", "secret-access-key", "bucket"


@dataclass(frozen=True)
class S3:
    """A running S3 server with one bucket."""

    port: int
    filer: int
    process: subprocess.Popen[bytes]

    def unfinished(self) -> list[str]:
        """The multipart uploads that the server holds parts of."""
        reply = httpx.get(
            f"http://127.0.0.1:{self.filer}/buckets/{BUCKET}/.uploads/",
            headers={"Accept": "application/json"},
            trust_env=False,
        )
        entries = [] if reply.status_code == 404 else reply.raise_for_status().json()["Entries"]
        return [entry["FullPath"] for entry in entries or []]

    @property
    def env(self) -> dict[str, str]:
        """The variables that a project's settings would hold."""
        return {
            "AWS_ENDPOINT": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
        }


@contextlib.contextmanager
def s3_server(*, keys: bool = True) -> Iterator[S3]:
    """Start the server; AssertionError with its log where it is not ready within 60 s.

    Without ``keys`` anyone may do anything.
    """
    folder = Path(tempfile.mkdtemp(prefix="s3-"))
    ports = {name: free_port() for name in ("s3", "master", "volume", "filer")}
    command = [str(BIN / "weed"), "mini", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    for name, port in ports.items():
        command += [f"-{name}.port={port}", f"-{name}.port.grpc={free_port()}"]
    command += [f"-bucket={BUCKET}", "-s3.autoCreateBucket=false", "-s3.iam=false"]
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-admin.ui=false", "-webdav=false"]
    command += [f"-admin.port={free_port()}", f"-admin.port.grpc={free_port()}"]
    log = (folder / "log").open("wb")
    own = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET} if keys else {}
    process = subprocess.Popen(
        command, env=clean_env(**own), stdout=log, stderr=log, start_new_session=True
    )
    try:
        server = S3(ports["s3"], ports["filer"], process)
        _wait(server, folder / "log")
        yield server
    finally:
        # It needs seconds to end in order, and nothing of it is kept.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        log.close()
        shutil.rmtree(folder, ignore_errors=True)


def _wait(server: S3, log: Path) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end and server.process.poll() is None:
        with contextlib.suppress(httpx.HTTPError):
            # It answers before it has made its bucket.
            bucket = f"http://127.0.0.1:{server.filer}/buckets/{BUCKET}/"
            if httpx.get(bucket, trust_env=False).status_code == 200:
                return
        time.sleep(0.1)
    raise AssertionError(log.read_text("utf-8", "replace")[-4000:])


AZURE_ACCOUNT = "devstoreaccount1"
AZURE_KEY = (  # Microsoft's, the same for every emulator
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)


@contextlib.contextmanager
def azure_server(folder: Path) -> Iterator[str]:
    """Microsoft's emulator of Azure's blobs, with the container ``bucket``; gives its endpoint."""
    port = free_port()
    program = packages(Path(__file__).parent / "azure") / "azurite/dist/src/blob/main.js"
    command = [str(NODE), str(program), "--blobPort", str(port), "--location", str(folder)]
    command += ["--silent", "--disableTelemetry", "--skipApiVersionCheck"]
    log = (folder / "log").open("wb")
    process = subprocess.Popen(command, env=clean_env(), stdout=log, stderr=log)
    endpoint = f"http://127.0.0.1:{port}/{AZURE_ACCOUNT}"
    try:
        end = time.monotonic() + 60
        while True:
            with contextlib.suppress(httpx.TransportError):
                _make_container(endpoint)
                break
            alive = process.poll() is None and time.monotonic() < end
            assert alive, (folder / "log").read_text("utf-8")
            time.sleep(0.1)
        yield endpoint
    finally:
        process.kill()
        process.wait()
        log.close()


def _make_container(endpoint: str) -> None:
    """Signed by hand: obstore makes no containers."""
    now = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
    signed = {"x-ms-date": now, "x-ms-version": "2021-08-06"}
    lines = [f"{name}:{value}" for name, value in signed.items()]
    resource = f"/{AZURE_ACCOUNT}/{AZURE_ACCOUNT}/{BUCKET}"
    text = "\n".join(["PUT", *[""] * 11, *lines, resource, "restype:container"])
    digest = hmac.digest(base64.b64decode(AZURE_KEY), text.encode(), "sha256")
    headers = {"Authorization": f"SharedKey {AZURE_ACCOUNT}:{base64.b64encode(digest).decode()}"}
    url = f"{endpoint}/{BUCKET}?restype=container"
    httpx.put(url, headers=signed | headers, trust_env=False).raise_for_status()


Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Outputs:
    """A server of outputs: what it answers by path, and what it was asked."""

    answers: dict[str, Answer] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    port: int = 0

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def file(self, path: str, body: bytes, *headers: str, status: str = "200 OK") -> str:
        """Serve a body with these header lines; returns the URL."""

        async def answer(writer: asyncio.StreamWriter) -> None:
            lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
            lines += ["Connection: close", "", ""]
            writer.write("\r\n".join(lines).encode("latin-1") + body)

        return self.raw(path, answer)

    def raw(self, path: str, answer: Answer) -> str:
        self.answers[path] = answer
        return self.origin + path

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            path = head[0].split(" ")[1]
            pairs = [line.partition(":") for line in head[1:] if line]
            self.asked.append((path, {n.lower(): value.strip() for n, _, value in pairs}))
            await self.answers[path](writer)
            await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def output_server() -> AsyncIterator[Outputs]:
    """A server on a free port; one answer for each connection."""
    outputs = Outputs()
    server = await asyncio.start_server(outputs.handle, "127.0.0.1", 0)
    outputs.port = server.sockets[0].getsockname()[1]
    try:
        yield outputs
    finally:
        server.close()
