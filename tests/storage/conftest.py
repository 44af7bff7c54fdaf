"""The sources of a project, importable in place, and servers of storage."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.rendering import ROOT

sys.path.insert(0, str(ROOT / "template/{{ python }}/src"))

from inference.storage import Storage
from tests.storage.blob_server import BlobServer, blob_server
from tests.storage.servers import BUCKET, S3, s3_server


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    with s3_server() as server:
        yield server


@pytest.fixture
def blob() -> Iterator[BlobServer]:
    with blob_server() as server:
        yield server


@pytest.fixture
def environment(s3: S3, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The provider's variables for the S3 server, as a project's settings hold them."""
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


@pytest.fixture
def storage(environment: pytest.MonkeyPatch) -> Storage:
    return Storage.open(f"s3://{BUCKET}/outputs")
