"""Where outputs and uploads are kept: five methods on obstore, for a disk, S3, R2, GCS or Azure."""

from __future__ import annotations

import asyncio
import atexit
import hashlib
import ipaddress
import os
import re
import secrets
import shutil
import sys
import threading
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import AzureStore, GCSStore, LocalStore, ObjectStore, S3Store, from_url

from .prediction import StoredFile

PART_BYTES = 8 * 2**20
_PIECE_BYTES = 2**20  # each costs two changes of threads
CHECK_SECONDS = 10
_ENDPOINTS = ("AWS_ENDPOINT", "AWS_ENDPOINT_URL", "AZURE_STORAGE_ENDPOINT", "GOOGLE_BASE_URL")


class StorageError(Exception):
    """The storage refused or cannot be reached; it may work again later."""


class _Stopped(Exception):
    """Raised inside an upload that is canceled, so that the store takes its parts away."""


@atexit.register
def _settle() -> None:
    """Let obstore's threads leave Python first: before 3.14, one that comes too late aborts us."""
    end = time.monotonic() + 1
    while sys._current_frames().keys() - {thread.ident for thread in threading.enumerate()}:
        if time.monotonic() > end:
            return
        time.sleep(0.001)


class Storage:
    """One bucket, container or folder, with an optional prefix."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    @classmethod
    def open(cls, url: str) -> Self:
        """The storage that ``STORAGE_URL`` names; credentials come from the provider's variables.

        Raises:
            ValueError: the URL names no storage, or a folder that cannot be made.
        """
        scheme = urlsplit(url).scheme if "://" in url else "file"
        if scheme not in ("file", "s3", "gs", "az"):
            raise ValueError(f"STORAGE_URL: {scheme}:// is none of a path, s3://, gs://, az://")
        endpoint = next((os.environ[name] for name in _ENDPOINTS if os.environ.get(name)), "")
        try:
            if scheme == "file":
                return cls(LocalStore(Path(url.removeprefix("file://")).resolve(), mkdir=True))
            store = from_url(
                url,
                client_options={
                    "allow_http": endpoint.startswith("http://"),
                    "timeout": timedelta(hours=1),  # a transfer's; 30 s would cut large ones
                    "read_timeout": timedelta(minutes=2),
                },
                retry_config={"max_retries": 4, "retry_timeout": timedelta(seconds=30)},
            )
        except (BaseError, OSError) as error:
            raise ValueError(f"STORAGE_URL: {_reason(error)} ({url})") from None
        return cls(store)

    async def put(self, key: str, chunks: AsyncIterator[bytes], content_type: str) -> StoredFile:
        """Stream an object into the storage, in parts; nothing is left where it ends early.

        Raises:
            StorageError: the store failed. What the chunks raise comes through unchanged.
        """
        digest = hashlib.sha256()
        size = 0
        stopped = False
        pulling: asyncio.Task[None] | None = None
        broken: Exception | None = None

        async def pieces() -> AsyncIterator[bytes]:
            nonlocal size, pulling, broken
            try:
                while not stopped:
                    pulling = asyncio.current_task()  # the store has one for each piece
                    piece = bytearray()
                    async for chunk in chunks:
                        digest.update(chunk)
                        piece += chunk
                        if len(piece) >= _PIECE_BYTES:
                            break
                    if not piece:
                        return
                    size += len(piece)
                    yield bytes(piece)
            except Exception as error:
                broken = error
                raise
            except asyncio.CancelledError:
                pass
            raise _Stopped

        disk = self._store if isinstance(self._store, LocalStore) else None
        if disk is not None:
            await asyncio.to_thread(_remove_halves, Path(disk.prefix or "") / key)
        upload = asyncio.ensure_future(
            obstore.put_async(
                self._store,
                key,
                pieces(),
                # A disk keeps no content type; the database's row does.
                attributes=None if disk else {"Content-Type": content_type},
                use_multipart=True,
                chunk_size=PART_BYTES,
                max_concurrency=2,
            )
        )
        try:
            await asyncio.shield(upload)
        except asyncio.CancelledError:
            # obstore takes the parts away where its source raises, but not where it is canceled.
            stopped = True
            if pulling is not None:
                pulling.cancel()
            await asyncio.wait([upload], timeout=CHECK_SECONDS)
            upload.cancel()
            raise
        except Exception as error:
            if broken is not None:
                raise broken from None
            raise StorageError(_reason(error)) from error
        return StoredFile(key, content_type, size, digest.hexdigest())

    async def get(self, key: str, span: tuple[int, int] | None = None) -> AsyncIterator[bytes]:
        """Stream an object, or its bytes from start to end (exclusive).

        Raises:
            StorageError: it is not there, or the store failed.
        """
        try:
            options = None if span is None else {"range": span}
            found = await obstore.get_async(self._store, key, options=options)  # type: ignore[arg-type]
            async for chunk in found.stream(min_chunk_size=2**18):
                yield bytes(chunk)
        except (BaseError, OSError) as error:
            raise StorageError(_reason(error)) from error

    async def delete(self, prefix: str) -> None:
        """Remove every object below the prefix, ``<id>/``; raises StorageError."""
        try:
            if isinstance(self._store, LocalStore):
                # Its folder, with what a killed process left half written, which no list shows.
                folder = Path(self._store.prefix or "") / prefix
                if await asyncio.to_thread(folder.is_dir):
                    await asyncio.to_thread(shutil.rmtree, folder)
                return
            async for found in obstore.list(self._store, prefix):
                await obstore.delete_async(self._store, [item["path"] for item in found])
        except (BaseError, OSError) as error:
            raise StorageError(_reason(error)) from error

    async def sign(self, key: str, seconds: int) -> str | None:
        """A URL that anyone may read for so long; None where the internet cannot reach us."""
        if not isinstance(self._store, (S3Store, GCSStore, AzureStore)):
            return None
        try:
            url = await obstore.sign_async(self._store, "GET", key, timedelta(seconds=seconds))
        except BaseError as error:
            raise StorageError(_reason(error)) from error
        return url if _public(url) else None

    async def check(self) -> None:
        """Write, read and remove a few bytes; raises StorageError with the reason."""
        folder = f"check/{secrets.token_hex(8)}"

        async def probe() -> AsyncIterator[bytes]:
            yield b"ok"

        try:
            async with asyncio.timeout(CHECK_SECONDS):
                await self.put(f"{folder}/probe", probe(), "text/plain")
                if b"".join([chunk async for chunk in self.get(f"{folder}/probe")]) != b"ok":
                    raise StorageError("what was written is not what is read")
                await self.delete(f"{folder}/")
        except TimeoutError:
            raise StorageError(f"no answer within {CHECK_SECONDS} s") from None


def _remove_halves(path: Path) -> None:
    """What a killed process left of a file: obstore gives it its name only at the end."""
    for half in path.parent.glob(f"{path.name}#*"):
        half.unlink(missing_ok=True)


def _public(url: str) -> bool:
    """Whether a URL of the store can be read from the internet."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        return parts.scheme == "https" and ipaddress.ip_address(host).is_global
    except ValueError:
        return parts.scheme == "https" and "." in host


def _reason(error: BaseException) -> str:
    """What went wrong, for a person, with the code that the store gave."""
    match error:
        case PermissionDeniedError() | UnauthenticatedError():
            words = "the storage refuses these credentials"
        case FileNotFoundError():
            words = "there is no such object, or no such bucket"
        case _:
            text = " ".join(str(error).split()).partition("Debug source")[0]
            words = text[:300] or type(error).__name__
    code = re.search(r"<Code>(\w+)</Code>", str(error))
    return f"{words} ({code[1]})" if code else words
