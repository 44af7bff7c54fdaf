"""The storage of a Next.js project in its own language: a disk, a real S3 server, Vercel Blob."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.node import NODE, installed
from tests.rendering import Renders, clean_env, free_port, run
from tests.storage.blob_server import SECRET, STORE, BlobServer
from tests.storage.servers import BUCKET, S3

MEBIBYTE = 2**20
LARGE = 20  # mebibytes: several parts
GROWTH = 128 * MEBIBYTE
BLOB_GROWTH = 192 * MEBIBYTE  # the SDK's client copies each part once more
DRIVER = Path(__file__).with_name("storage_driver.ts")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(renders: Renders, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed(renders.copy(tmp_path_factory.mktemp("ts") / "project", framework="nextjs"))


Drive = Callable[..., dict[str, Any]]


def driver(project: Path, url: str, variables: dict[str, str]) -> Drive:
    """Does something to the storage in a process of its own; returns what it said."""

    def run(what: str, *arguments: str | int, **env: str) -> dict[str, Any]:
        command = [NODE, "--conditions=react-server", DRIVER, project, url, what, *arguments]
        done = subprocess.run(
            list(map(str, command)),
            cwd=project,
            env=clean_env(**(variables | env)),
            capture_output=True,
            encoding="utf-8",
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        said: dict[str, Any] = json.loads(done.stdout)
        return said

    return run


@pytest.fixture
def drive_blob(project: Path, blob: BlobServer) -> Drive:
    return driver(project, "vercel-blob://outputs", blob.env)


@pytest.fixture(params=["disk", "s3", "blob"])
def drive(request: pytest.FixtureRequest, project: Path, tmp_path: Path) -> Drive:
    match request.param:
        case "disk":
            return driver(project, str(tmp_path / "outputs"), {})
        case "s3":
            s3: S3 = request.getfixturevalue("s3")
            return driver(project, f"s3://{BUCKET}/{tmp_path.name}", s3.env)
        case _:
            blob: Drive = request.getfixturevalue("drive_blob")
            return blob


@pytest.mark.parametrize("mebibytes", [0, 1, LARGE])
def test_what_is_stored_is_read(drive: Drive, mebibytes: int) -> None:
    stored = drive("put", "a/0.bin", mebibytes)
    assert (stored["size"], stored["key"]) == (mebibytes * MEBIBYTE, "a/0.bin")
    read = drive("get", "a/0.bin")
    assert (read["size"], read["sha256"]) == (stored["size"], stored["sha256"])
    if mebibytes:
        assert drive("get", "a/0.bin", 5, 9)["size"] == 4
    if mebibytes > 1:
        span = drive("get", "a/0.bin", MEBIBYTE - 2, MEBIBYTE + 2)
        assert span["sha256"] == hashlib.sha256(b"\0\0\1\1").hexdigest()


def test_a_second_run_replaces(drive: Drive) -> None:
    for mebibytes in (1, 2, LARGE, 1):
        drive("put", "a/0.bin", mebibytes)
        assert drive("get", "a/0.bin")["size"] == mebibytes * MEBIBYTE


def test_nothing_is_left_of_what_breaks(drive: Drive, s3: S3) -> None:
    assert drive("break", "b/0.bin", LARGE)["error"] == "Error: the source broke"
    assert "no such object" in drive("get", "b/0.bin")["error"]
    assert s3.unfinished() == []


def test_what_is_deleted_is_gone_and_nothing_else(drive: Drive) -> None:
    for key in ("c/0.bin", "c/1.bin", "cc/0.bin"):
        drive("put", key, 1)
    drive("delete", "c/")
    assert "no such object" in drive("get", "c/0.bin")["error"]
    assert drive("get", "cc/0.bin")["size"] == MEBIBYTE
    drive("delete", "c/")


def test_a_check_says_what_is_wrong(drive: Drive, request: pytest.FixtureRequest) -> None:
    assert drive("check") == {}
    if "s3" in request.node.name:
        assert "credentials" in drive("check", AWS_SECRET_ACCESS_KEY="another")["error"]
    if "blob" in request.node.name:
        for token in (f"vercel_blob_rw_{STORE}_another", f"vercel_blob_rw_another_{SECRET}", "x"):
            assert "credentials" in drive("check", BLOB_READ_WRITE_TOKEN=token)["error"]
        assert "BLOB_READ_WRITE_TOKEN" in drive("check", BLOB_READ_WRITE_TOKEN="")["error"]


@pytest.mark.parametrize("mebibytes", [int(os.environ.get("STORAGE_MEBIBYTES", "256"))])
def test_the_size_does_not_matter_for_memory(
    drive: Drive, mebibytes: int, request: pytest.FixtureRequest
) -> None:
    stored = drive("put", "d/0.bin", mebibytes)
    assert stored["size"] == mebibytes * MEBIBYTE
    most = BLOB_GROWTH if "blob" in request.node.name else GROWTH
    assert stored["growth"] < most, f"{stored['growth'] / MEBIBYTE:.0f} MiB more"


def test_the_type_is_kept_and_blobs_are_private(drive_blob: Drive, blob: BlobServer) -> None:
    for mebibytes in (1, LARGE):
        drive_blob("put", "a/0.bin", mebibytes)
        assert blob.blobs["outputs/a/0.bin"].content_type == "application/octet-stream"
    assert ".private." in blob.blobs["outputs/a/0.bin"].url


@pytest.mark.parametrize("part", [1, 2, 3])
def test_a_part_that_fails_leaves_nothing(drive_blob: Drive, blob: BlobServer, part: int) -> None:
    blob.failing_part = part
    assert "not available" in drive_blob("put", "a/0.bin", LARGE)["error"]
    assert blob.blobs == {}
    blob.failing_part = 0
    assert drive_blob("put", "a/0.bin", LARGE)["size"] == LARGE * MEBIBYTE


def test_a_long_listing_is_deleted_whole(drive_blob: Drive, blob: BlobServer) -> None:
    blob.page = 2
    for index in range(5):
        drive_blob("put", f"a/{index}.bin", 0)
    drive_blob("put", "b/0.bin", 0)
    drive_blob("delete", "a/")
    assert list(blob.blobs) == ["outputs/b/0.bin"]


@pytest.mark.parametrize("mebibytes", [1, LARGE])
def test_a_deadline_ends_an_upload_that_nobody_answers(
    drive_blob: Drive, blob: BlobServer, mebibytes: int
) -> None:
    blob.stalled = threading.Event()
    said = drive_blob("late", "a/0.bin", mebibytes, VERCEL_BLOB_RETRIES="10")
    assert said["error"].startswith("TimeoutError")
    blob.stalled.set()
    assert blob.blobs == {}


def test_a_store_that_is_away_is_named_soon(drive_blob: Drive) -> None:
    away = {"VERCEL_BLOB_API_URL": f"http://127.0.0.1:{free_port()}", "VERCEL_BLOB_RETRIES": ""}
    assert "ECONNREFUSED" in drive_blob("check", **away)["error"]


def test_the_stand_in_is_what_the_sdk_expects(project: Path, blob: BlobServer) -> None:
    command = [str(NODE), str(DRIVER.with_name("blob_sdk.ts")), str(project)]
    done = run(*command, cwd=project, env=clean_env(**blob.env))
    said = json.loads(done.stdout)
    assert said.pop("suffixed").startswith("a/small-")
    for name, words in {
        "again": "BlobError: Vercel Blob: This blob already exists",
        "againInParts": "BlobError: Vercel Blob: This blob already exists",
        "public": "BlobError: Vercel Blob: Cannot use public access",
        "secret": "BlobAccessError",
        "store": "BlobStoreNotFoundError",
        "missing": "BlobNotFoundError",
        "reader": "BlobError: Vercel Blob: Failed to fetch blob: 403",
    }.items():
        # The SDK's classes lose their names where it is bundled; the words are the same.
        assert words in said[name], said
        del said[name]
    assert said == {
        "same": True,
        "type": ["x/y", "x/y"],
        "sizes": [LARGE * MEBIBYTE, LARGE * MEBIBYTE, 5],
        "listed": [[1, True, True], [1, False, False]],
        "replaced": "a/large.bin",
        "absent": None,
        "left": 0,
    }
