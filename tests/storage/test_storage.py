"""The storage on a real S3 server, on a disk, and in memory."""

from __future__ import annotations

import _thread
import asyncio
import hashlib
import os
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import obstore
import pytest
from obstore.store import MemoryStore

from inference import storage as module
from inference.storage import PART_BYTES, Storage, StorageError
from tests.rendering import ROOT, clean_env, run
from tests.storage.servers import BUCKET, S3, s3_server

pytestmark = pytest.mark.anyio


async def pieces(content: bytes, size: int = 2**18 + 1) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def read(storage: Storage, key: str, span: tuple[int, int] | None = None) -> bytes:
    return b"".join([chunk async for chunk in storage.get(key, span)])


async def keys(storage: Storage) -> list[str]:
    found = [item["path"] async for page in obstore.list(storage._store) for item in page]
    return sorted(found)


@pytest.fixture(params=["s3", "r2", "disk", "memory"])
def any_storage(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Storage:
    """Each kind of storage; R2's settings differ from S3's in the region."""
    if request.param == "memory":
        return Storage(MemoryStore())
    if request.param == "disk":
        return Storage.open(str(tmp_path / "outputs"))
    request.getfixturevalue("environment")
    if request.param == "r2":
        monkeypatch.setenv("AWS_REGION", "auto")
    return Storage.open(f"s3://{BUCKET}/{tmp_path.name}")


@pytest.mark.parametrize("size", [0, 1, PART_BYTES, 2 * PART_BYTES + 12_345])
async def test_what_is_put_is_got(any_storage: Storage, size: int) -> None:
    content = os.urandom(size)
    stored = await any_storage.put("id/0.png", pieces(content), "image/png")
    assert (stored.key, stored.content_type, stored.size) == ("id/0.png", "image/png", size)
    assert stored.sha256 == hashlib.sha256(content).hexdigest()
    assert await read(any_storage, "id/0.png") == content
    if size > 1:
        middle = (size // 2 - 7, size // 2 + 7)
        assert await read(any_storage, "id/0.png", middle) == content[slice(*middle)]


async def test_an_object_is_replaced(any_storage: Storage) -> None:
    for content in (b"first", b"second"):
        await any_storage.put("id/0.txt", pieces(content), "text/plain")
    assert await read(any_storage, "id/0.txt") == b"second"
    assert await keys(any_storage) == ["id/0.txt"]


async def test_a_missing_object(any_storage: Storage) -> None:
    with pytest.raises(StorageError, match="no such object"):
        await read(any_storage, "id/0.png")


async def test_delete_takes_one_prediction(any_storage: Storage) -> None:
    kept = ["id1/0.png", "id10/0.png", "i/0.png"]
    for key in [*kept, "id/0.png", "id/1.png", "id/2.bin"]:
        await any_storage.put(key, pieces(b"x"), "image/png")
    await any_storage.delete("id/")
    assert await keys(any_storage) == sorted(kept)
    await any_storage.delete("id/")


async def test_check_leaves_nothing_and_may_run_side_by_side(any_storage: Storage) -> None:
    await asyncio.gather(*[any_storage.check() for _ in range(8)])
    assert await keys(any_storage) == []


async def test_a_source_that_breaks_leaves_nothing(any_storage: Storage) -> None:
    async def source() -> AsyncIterator[bytes]:
        yield bytes(PART_BYTES + 1)
        raise ConnectionResetError("the source broke")

    with pytest.raises(ConnectionResetError, match="the source broke"):
        await any_storage.put("id/0.bin", source(), "image/png")
    assert await keys(any_storage) == []


async def test_a_stopped_upload_ends_at_once_and_leaves_nothing(any_storage: Storage) -> None:
    """Also where the source says nothing more at the time."""
    waits = asyncio.Event()
    closed = False

    async def source() -> AsyncIterator[bytes]:
        nonlocal closed
        try:
            for _ in range(20):
                yield os.urandom(2**20)
            waits.set()
            await asyncio.sleep(600)
        finally:
            closed = True

    upload = asyncio.create_task(any_storage.put("id/0.bin", source(), "image/png"))
    await waits.wait()
    started = time.monotonic()
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload
    assert time.monotonic() - started < 5
    assert closed
    assert await keys(any_storage) == []


async def test_a_stopped_upload_is_not_read_to_its_end(any_storage: Storage) -> None:
    """Also where the source waits for nothing, so that no wait of its could be ended."""
    pulled = 0

    async def source() -> AsyncIterator[bytes]:
        nonlocal pulled
        for pulled in range(200):
            if pulled == 20:
                upload.cancel()
            yield bytes(2**20)

    upload = asyncio.create_task(any_storage.put("id/0.bin", source(), "image/png"))
    with pytest.raises(asyncio.CancelledError):
        await upload
    assert pulled < 100
    assert await keys(any_storage) == []


async def test_the_server_is_left_without_parts(s3: S3, storage: Storage) -> None:
    waits = asyncio.Event()

    async def source() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield os.urandom(2**20)
        waits.set()
        await asyncio.sleep(600)

    upload = asyncio.create_task(storage.put("id/0.bin", source(), "image/png"))
    await waits.wait()
    # the parts are there, so that their absence afterwards says something
    assert await asyncio.to_thread(s3.unfinished) != []
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload
    assert await asyncio.to_thread(s3.unfinished) == []


async def test_a_disk_is_left_without_parts(tmp_path: Path) -> None:
    storage = Storage.open(f"file://{tmp_path}/outputs")
    folder = tmp_path / "outputs/id"
    waits = asyncio.Event()

    async def source() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield bytes(2**20)
        waits.set()
        await asyncio.sleep(600)

    upload = asyncio.create_task(storage.put("id/0.bin", source(), "image/png"))
    await waits.wait()
    assert [path.name for path in folder.iterdir()] != []
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload
    assert [path.name for path in folder.iterdir()] == []


KILLED = """
import asyncio, sys
from inference.storage import Storage

async def source():
    for _ in range(20):
        yield bytes(2**20)
    print("half", flush=True)
    await asyncio.sleep(600)

asyncio.run(Storage.open(sys.argv[1]).put("id/0.bin", source(), "image/png"))
"""


async def killed_in_the_middle(url: str, env: dict[str, str]) -> None:
    """SIGKILL for a process that uploads ``id/0.bin``."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", KILLED, url),
        env=clean_env(PYTHONPATH=str(ROOT / "template/{{ python }}/src"), **env),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"half\n"
    process.kill()
    await process.wait()


async def test_the_next_try_clears_up_after_a_killed_process(tmp_path: Path) -> None:
    folder = tmp_path / "outputs/id"
    await killed_in_the_middle(str(tmp_path / "outputs"), {})
    assert [path.name for path in folder.iterdir()] == ["0.bin#1"]
    storage = Storage.open(str(tmp_path / "outputs"))
    await storage.put("id/0.bin", pieces(b"x"), "image/png")
    assert [path.name for path in folder.iterdir()] == ["0.bin"]


async def test_a_killed_upload_is_no_object(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its parts stay: the README says which rule of the bucket takes them away."""
    with s3_server() as server:  # one of its own: other tests count what is left on theirs
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        storage = Storage.open(f"s3://{BUCKET}/outputs")
        await killed_in_the_middle(f"s3://{BUCKET}/outputs", server.env)
        assert len(await asyncio.to_thread(server.unfinished)) == 1
        assert await keys(storage) == []
        await storage.put("id/0.bin", pieces(b"x"), "image/png")
        assert await read(storage, "id/0.bin") == b"x"


async def test_delete_takes_what_a_killed_process_left_on_a_disk(tmp_path: Path) -> None:
    storage = Storage.open(str(tmp_path / "outputs"))
    await storage.put("id/0.bin", pieces(b"x"), "image/png")
    (tmp_path / "outputs/id/0.bin#1").write_bytes(b"half")
    await storage.delete("id/")
    assert list((tmp_path / "outputs").iterdir()) == []


async def test_the_content_type_is_kept(storage: Storage) -> None:
    await storage.put("id/0.wav", pieces(b"RIFF"), "audio/wav")
    found = await obstore.get_async(storage._store, "id/0.wav")
    assert found.attributes["Content-Type"] == "audio/wav"


async def test_a_signed_url(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    content = os.urandom(100_000)
    await storage.put("id/0.png", pieces(content), "image/png")
    assert await storage.sign("id/0.png", 60) is None  # nobody else can reach this machine
    monkeypatch.setattr(module, "_public", lambda url: True)
    url = await storage.sign("id/0.png", 60)
    short = await storage.sign("id/0.png", 1)
    assert url is not None
    assert short is not None
    async with httpx.AsyncClient(trust_env=False) as client:
        reply = await client.get(url)
        assert (reply.status_code, reply.content) == (200, content)
        assert reply.headers["content-type"] == "image/png"
        assert (await client.get(url.partition("?")[0])).status_code == 403
        assert (await client.get(url.replace("0.png", "1.png"))).status_code == 403
        assert (await client.put(url, content=b"x")).status_code == 403
        await asyncio.sleep(2.5)
        assert (await client.get(short)).status_code == 403


@pytest.mark.parametrize(
    ("url", "public"),
    [
        ("https://bucket.s3.eu-central-1.amazonaws.com/key", True),
        ("https://1.1.1.1/key", True),
        ("http://bucket.s3.eu-central-1.amazonaws.com/key", False),
        ("https://localhost/key", False),
        ("https://minio:9000/key", False),
        ("https://127.0.0.1/key", False),
        ("https://10.1.2.3/key", False),
        ("https://[::1]/key", False),
        ("https://169.254.169.254/key", False),
    ],
)
def test_what_the_internet_can_reach(url: str, public: bool) -> None:
    assert module._public(url) is public


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("AWS_SECRET_ACCESS_KEY", "wrong", "refuses these credentials (SignatureDoesNotMatch)"),
        ("AWS_ACCESS_KEY_ID", "unknown", "refuses these credentials (InvalidAccessKeyId)"),
    ],
)
async def test_wrong_credentials(
    environment: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    environment.setenv(name, value)
    with pytest.raises(StorageError) as refused:
        await Storage.open(f"s3://{BUCKET}/outputs").check()
    assert words in str(refused.value)
    assert "127.0.0.1" not in str(refused.value)


async def test_a_missing_bucket(environment: pytest.MonkeyPatch) -> None:
    with pytest.raises(StorageError, match=r"no such bucket \(NoSuchBucket\)"):
        await Storage.open("s3://another/outputs").check()


async def test_a_store_that_never_answers(environment: pytest.MonkeyPatch) -> None:
    environment.setattr(module, "CHECK_SECONDS", 1)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        environment.setenv("AWS_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        started = time.monotonic()
        with pytest.raises(StorageError, match="no answer within 1 s"):
            await Storage.open(f"s3://{BUCKET}/outputs").check()
        assert time.monotonic() - started < 10


async def test_a_store_that_fails_in_the_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    pulled = 0

    with s3_server() as server:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        storage = Storage.open(f"s3://{BUCKET}/outputs")

        async def source() -> AsyncIterator[bytes]:
            nonlocal pulled
            for pulled in range(500):
                if pulled == 40:
                    server.process.kill()
                yield bytes(2**20)

        with pytest.raises(StorageError):
            await storage.put("id/0.bin", source(), "image/png")
    assert 40 <= pulled < 100  # it stops reading: what is not stored is not fetched


@pytest.mark.parametrize("url", ["ftp://host/x", "http://host/x", "memory://", "s3a://b"])
def test_an_unknown_storage(url: str) -> None:
    with pytest.raises(ValueError, match="STORAGE_URL"):
        Storage.open(url)


async def test_a_disk_that_refuses(tmp_path: Path) -> None:
    storage = Storage.open(str(tmp_path / "outputs"))
    (tmp_path / "outputs/id").write_text("a file where a folder should be")
    with pytest.raises(StorageError):
        await storage.put("id/0.bin", pieces(b"x"), "image/png")


LEAVES = """
import asyncio, sys
from inference.storage import Storage

async def one():
    yield b"x"

async def store(folder):
    storage = Storage.open(folder)
    await asyncio.gather(*[storage.put(str(i), one(), "text/plain") for i in range(40)])

asyncio.run(store(sys.argv[1]))
"""


async def test_a_process_that_ends_right_after_a_transfer_ends_well(tmp_path: Path) -> None:
    """The store's threads are still handing over: each of these had aborted every second time."""
    env = clean_env(PYTHONPATH=str(ROOT / "template/{{ python }}/src"))
    for _ in range(6):
        await asyncio.to_thread(run, sys.executable, "-c", LEAVES, tmp_path, cwd=ROOT, env=env)


def test_the_end_of_a_process_waits_for_threads_of_others() -> None:
    inside, leave = threading.Event(), threading.Event()

    def foreign() -> None:
        inside.set()
        leave.wait()

    _thread.start_new_thread(foreign, ())  # unknown to threading, as obstore's are
    inside.wait()
    ending = threading.Thread(target=module._settle)
    ending.start()
    ending.join(0.2)
    assert ending.is_alive()
    leave.set()
    ending.join()
