"""Outputs into the storage, from real servers that misbehave; in both languages."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from inference import outputs
from inference.outputs import (
    AllowedHosts,
    OutputExpired,
    OutputRefused,
    OutputUnavailable,
    store_output,
)
from inference.prediction import StoredFile
from inference.registry import OutputKind
from inference.storage import Storage
from tests.node import NODE, installed
from tests.rendering import Renders, clean_env
from tests.storage.servers import Answer, Outputs, output_server

pytestmark = pytest.mark.anyio

PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)
DATA = "data:image/png;base64," + base64.b64encode(PNG).decode()
LIMIT = 2**20
ERRORS = (OutputRefused, OutputExpired, OutputUnavailable)
DRIVER = Path(__file__).with_name("output_driver.ts")


@pytest.fixture
async def server() -> AsyncIterator[Outputs]:
    async with output_server() as running:
        yield running


@pytest.fixture
async def stranger() -> AsyncIterator[Outputs]:
    async with output_server() as running:
        yield running


@pytest.fixture(scope="module")
def typescript(renders: Renders, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of Next.js that waits for shorter times than a project's own."""
    place = tmp_path_factory.mktemp("outputs") / "project"
    project = installed(renders.copy(place, framework="nextjs"))
    source = project / "src/lib/fetching.ts"
    text = source.read_text("utf-8")
    for right, hurried in {
        "const MOST_SECONDS = 3600;": "const MOST_SECONDS = 10;",
        "const IDLE_SECONDS = 30;": "const IDLE_SECONDS = 2;",
    }.items():
        assert right in text
        text = text.replace(right, hurried)
    source.write_text(text, "utf-8")
    return project


@dataclass
class Disk:
    """Where outputs go, and the project that brings them there where it is not one in Python."""

    folder: Path
    project: Path | None = None


@pytest.fixture(params=["python", pytest.param("typescript", marks=pytest.mark.slow)])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Disk:
    python = request.param == "python"
    return Disk(tmp_path / "outputs", None if python else request.getfixturevalue("typescript"))


async def store(
    output: Any, kind: OutputKind, disk: Disk, server: Outputs, limit: int = LIMIT
) -> tuple[list[StoredFile], Any]:
    allowed = AllowedHosts(server.origin, "r8_secret")
    if disk.project is not None:
        return await stored_by(disk.project, output, kind, disk, allowed, limit)
    async with httpx.AsyncClient(timeout=2, trust_env=False) as client:
        return await store_output(
            "id",
            output,
            kind,
            storage=Storage.open(str(disk.folder)),
            client=client,
            allowed=allowed,
            max_bytes=limit,
        )


async def stored_by(
    project: Path, output: Any, kind: OutputKind, disk: Disk, allowed: AllowedHosts, limit: int
) -> tuple[list[StoredFile], Any]:
    """As a project in TypeScript stores it, in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        *(str(NODE), "--conditions=react-server", str(DRIVER), str(project)),
        cwd=project,
        env=clean_env(),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    given = {"folder": str(disk.folder), "output": output, "kind": kind}
    given |= {"allowed": asdict(allowed), "maxBytes": limit}
    try:
        said = json.loads((await process.communicate(json.dumps(given).encode()))[0])
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if "error" in said:
        raise {each.__name__: each for each in ERRORS}[said["error"]](said["words"])
    return [StoredFile(**file) for file in said["files"]], said["output"]


def left(tmp_path: Path) -> list[str]:
    return [path.name for path in tmp_path.rglob("*") if path.is_file()]


async def test_one_and_several_and_none(server: Outputs, disk: Disk) -> None:
    url = server.file("/a.png", PNG, "Content-Type: image/png")
    files, output = await store(url, "file", disk, server)
    assert output == "/files/id/0"
    assert files == [StoredFile("id/0.png", "image/png", 108, hashlib.sha256(PNG).hexdigest())]
    files, output = await store([url, url, DATA], "files", disk, server)
    assert output == ["/files/id/0", "/files/id/1", "/files/id/2"]
    assert [file.key for file in files] == ["id/0.png", "id/1.png", "id/2.png"]
    assert await store([], "files", disk, server) == ([], [])


async def test_urls_at_any_depth(server: Outputs, disk: Disk) -> None:
    url = server.file("/a.png", PNG)
    given = {url: 1, "a": [{"b": [url, None, 1.5, True]}], "c": DATA, "d": "https://example.com/x"}
    files, output = await store(given, "json", disk, server)
    expected = {"a": [{"b": ["/files/id/0", None, 1.5, True]}], "c": "/files/id/1"}
    assert output == {url: 1, **expected, "d": "https://example.com/x"}
    assert len(files) == 2


@pytest.mark.parametrize(
    ("kind", "output", "stored"),
    [
        ("text", "data: none of these is a file", "data: none of these is a file"),
        ("text-stream", ["a", "b", ""], "ab"),
        ("json", {"a": ["data:", "data:,", "data: x/y"]}, {"a": ["data:", "data:,", "data: x/y"]}),
        ("json", None, None),
    ],
)
async def test_without_files(
    kind: OutputKind, output: Any, stored: Any, disk: Disk, server: Outputs
) -> None:
    assert await store(output, kind, disk, server) == ([], stored)


@pytest.mark.parametrize(
    ("kind", "output"),
    [
        ("file", None),
        ("file", {"url": DATA}),
        ("file", "just words"),
        ("file", "http://127.0.0.1:1/a.png"),
        ("file", "http://169.254.169.254/latest/meta-data"),
        ("file", "file:///etc/passwd"),
        ("file", "data:image/png;base64,%%%"),
        ("files", [DATA, 1]),
        ("files", DATA),
        ("text", {"a": 1}),
        ("text", ["a", 1]),
    ],
)
async def test_another_shape_is_refused(
    kind: OutputKind, output: Any, disk: Disk, server: Outputs, tmp_path: Path
) -> None:
    with pytest.raises(OutputRefused):
        await store(output, kind, disk, server)
    assert left(tmp_path) == []


async def test_too_deep_is_refused(disk: Disk, server: Outputs) -> None:
    deep: Any = DATA
    for _ in range(5_000):
        deep = [deep]
    limit = sys.getrecursionlimit()
    if disk.project is not None:
        sys.setrecursionlimit(20_000)  # for the JSON that its process is given
    try:
        with pytest.raises(OutputRefused):
            await store(deep, "json", disk, server)
    finally:
        sys.setrecursionlimit(limit)


@pytest.mark.parametrize("status", ["404 Not Found", "410 Gone"])
async def test_expired(status: str, server: Outputs, disk: Disk) -> None:
    with pytest.raises(OutputExpired):
        await store(server.file("/a.png", b"", status=status), "file", disk, server)


@pytest.mark.parametrize("status", ["500 Oops", "503 Busy", "429 Slow", "206 Partial"])
async def test_unavailable(status: str, server: Outputs, disk: Disk) -> None:
    with pytest.raises(OutputUnavailable):
        await store(server.file("/a.png", PNG, status=status), "file", disk, server)


async def test_short_and_endless_and_silent(server: Outputs, disk: Disk, tmp_path: Path) -> None:
    async def short(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + PNG)

    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(bytes(2**16))
            await writer.drain()

    async def silent(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        await asyncio.sleep(30)

    with pytest.raises(OutputUnavailable):
        await store(server.raw("/short", short), "file", disk, server)
    with pytest.raises(OutputRefused, match="larger than"):
        await store(server.raw("/endless", endless), "file", disk, server)
    with pytest.raises(OutputUnavailable):
        await asyncio.wait_for(store(server.raw("/silent", silent), "file", disk, server), 8)
    assert left(tmp_path) == []


def slow(body: bytes) -> Answer:
    """A body that comes byte by byte."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode())
        for byte in body:
            await asyncio.sleep(0.02)
            writer.write(bytes([byte]))
            await writer.drain()

    return answer


async def test_the_first_bytes_come_one_by_one(server: Outputs, disk: Disk) -> None:
    files, _ = await store(server.raw("/a", slow(b"RIFF\0\0\0\0WAVEfmt ")), "file", disk, server)
    assert files[0].content_type == "audio/wav"
    assert files[0].size == 16


async def test_a_body_that_comes_too_slowly(
    server: Outputs, disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much may still be missing, and although something comes all the time."""
    monkeypatch.setattr(outputs, "_MOST_SECONDS", 0.5)
    with pytest.raises(OutputUnavailable):
        await asyncio.wait_for(
            store(server.raw("/a", slow(bytes(2_000))), "file", disk, server), 30
        )
    assert left(tmp_path) == []


async def test_too_large(server: Outputs, disk: Disk) -> None:
    url = server.file("/a.png", PNG)
    with pytest.raises(OutputRefused, match="larger than"):
        await store(url, "file", disk, server, limit=107)
    with pytest.raises(OutputRefused, match="larger than"):
        await store([url, url], "files", disk, server, limit=215)
    assert len((await store([url, url], "files", disk, server, limit=216))[0]) == 2
    with pytest.raises(OutputRefused, match="larger than"):
        await store(DATA, "file", disk, server, limit=107)


async def test_what_says_that_it_is_too_large_is_not_read(server: Outputs, disk: Disk) -> None:
    async def announces(writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {LIMIT + 1}\r\n\r\n".encode())
        await writer.drain()
        await asyncio.sleep(30)

    with pytest.raises(OutputRefused, match="larger than"):
        await store(server.raw("/a.png", announces), "file", disk, server)


async def test_compressed_is_refused(server: Outputs, disk: Disk) -> None:
    bomb = server.file("/a.png", gzip.compress(bytes(2**22)), "Content-Encoding: gzip")
    with pytest.raises(OutputRefused, match="compressed"):
        await store(bomb, "file", disk, server)


async def test_a_redirect_to_a_stranger_is_not_followed(
    server: Outputs, stranger: Outputs, disk: Disk
) -> None:
    elsewhere = stranger.file("/a.png", PNG)
    url = server.file("/r", b"", f"Location: {elsewhere}", status="302 Found")
    with pytest.raises(OutputRefused, match="not on a host"):
        await store(url, "file", disk, server)
    assert stranger.asked == []


async def test_redirects_on_the_same_host(server: Outputs, disk: Disk) -> None:
    server.file("/a.png", PNG)
    url = server.file("/r", b"", "Location: /a.png", status="302 Found")
    assert (await store(url, "file", disk, server))[1] == "/files/id/0"
    loop = server.file("/loop", b"", "Location: /loop", status="302 Found")
    with pytest.raises(OutputRefused, match="without end"):
        await store(loop, "file", disk, server)


async def test_the_token_is_sent_only_when_asked_for(server: Outputs, disk: Disk) -> None:
    await store(server.file("/a.png", PNG), "file", disk, server)
    assert "authorization" not in server.asked[0][1]
    assert server.asked[0][1]["accept-encoding"] == "identity"
    server.asked.clear()
    with pytest.raises(OutputUnavailable):
        await store(server.file("/b.png", b"", status="401 No"), "file", disk, server)
    sent = [headers.get("authorization") for _, headers in server.asked]
    assert sent == [None, "Bearer r8_secret"]
    server.asked.clear()
    url = server.file("/r", b"", "Location: /b.png", status="302 Found")
    with pytest.raises(OutputUnavailable):
        await store(url, "file", disk, server)
    assert [headers.get("authorization") for _, headers in server.asked] == [None, None]


async def test_the_token_does_not_go_on_with_a_redirect(server: Outputs, disk: Disk) -> None:
    server.file("/b.png", PNG)

    async def answer(writer: asyncio.StreamWriter) -> None:
        asked = server.asked[-1][1]
        status = "302 Found" if "authorization" in asked else "401 No"
        writer.write(f"HTTP/1.1 {status}\r\nLocation: /b.png\r\nContent-Length: 0\r\n\r\n".encode())

    await store(server.raw("/a.png", answer), "file", disk, server)
    sent = [(path, headers.get("authorization")) for path, headers in server.asked]
    assert sent == [("/a.png", None), ("/a.png", "Bearer r8_secret"), ("/b.png", None)]


@pytest.mark.parametrize(
    ("body", "announced", "stored"),
    [
        (PNG, "", "image/png"),
        (PNG, "text/html", "image/png"),
        (b"\xff\xd8\xff\xe0", "application/octet-stream", "image/jpeg"),
        (b"RIFF\0\0\0\0WAVEfmt ", "", "audio/wav"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "", "image/webp"),
        (b"\0\0\0\x20ftypisom", "", "video/mp4"),
        (b"\0\0\0\x20ftypavif", "image/png", "image/avif"),
        (b"OggS", "video/ogg", "video/ogg"),
        (b"plain", "text/plain; charset=utf-8", "text/plain"),
        (b"plain", "not a type", "application/octet-stream"),
    ],
)
async def test_the_content_type(
    body: bytes, announced: str, stored: str, server: Outputs, disk: Disk
) -> None:
    headers = [f"Content-Type: {announced}"] if announced else []
    files, _ = await store(server.file("/a", body, *headers), "file", disk, server)
    assert files[0].content_type == stored


async def test_a_thousand_files(server: Outputs, disk: Disk) -> None:
    url = server.file("/a.png", PNG)
    files, output = await store([url] * 1_000, "files", disk, server)
    assert len({file.key for file in files}) == 1_000
    assert output[-1] == "/files/id/999"
    with pytest.raises(OutputRefused, match="more than"):
        await store([url] * 1_001, "files", disk, server)


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://replicate.delivery/a.png", True),
        ("https://pbxt.replicate.delivery/a.png", True),
        ("HTTPS://Replicate.Delivery:443/a.png", True),
        ("http://replicate.delivery/a.png", False),
        ("https://replicate.delivery:8443/a.png", False),
        ("https://replicate.delivery.evil.com/a.png", False),
        ("https://evilreplicate.delivery/a.png", False),
        ("https://evil.com/replicate.delivery", False),
        ("https://replicate.delivery@evil.com/", False),
        ("https://user:pw@replicate.delivery/", False),
        ("https://replicate.delivery\\@evil.com/", False),
        (" https://replicate.delivery/a.png", False),
        ("https://replicate.delivery\n.evil.com/", False),
        ("https://[::1", False),
        ("https://127.0.0.1/", False),
        ("ftp://replicate.delivery/", False),
        ("", False),
    ],
)
def test_allowed_hosts(url: str, allowed: bool) -> None:
    assert AllowedHosts().allows(url) is allowed
