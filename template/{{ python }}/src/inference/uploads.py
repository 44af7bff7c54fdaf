"""Files that callers send, to be used as inputs for a day; and whom a limit counts."""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import replace

from .prediction import StoredFile, StoredUrl
from .problems import Problem
from .settings import Settings
from .storage import Storage
from .store import LimitReached, Store, Upload

UPLOAD_SECONDS = 86_400.0
"""For how long an upload can be used, as Replicate's own files can."""
UPLOAD_MARGIN = 2 * 3600.0
"""Seconds after that in which a prediction may still wait for its start, or Replicate fetch it."""
EVENT_SECONDS = 86_400.0
"""For how long webhooks are kept: no repetition of one comes after minutes."""


class Uploads:
    """The uploads of a service."""

    def __init__(self, settings: Settings, store: Store, storage: Storage) -> None:
        self.settings = settings
        self.store = store
        self.storage = storage

    async def save(
        self, caller: str, address: str, content_type: str, chunks: AsyncIterator[bytes]
    ) -> StoredUrl:
        """Store a file of the caller's, streamed; it is theirs for ``UPLOAD_SECONDS``.

        Raises:
            Problem: 429 a limit is reached; no chunk was taken.
            StorageError: the storage failed.
        """
        upload_id = secrets.token_hex(16)
        upload = Upload(upload_id, caller, network_of(address), time.time())
        try:
            await asyncio.to_thread(self.store.add_upload, upload, self.settings.limits)
        except LimitReached as limit:
            raise limited(limit) from None
        stored = await self.storage.put(f"uploads/{upload_id}/0", chunks, content_type)
        await asyncio.to_thread(self.store.keep_upload, replace(upload, file=stored))
        return StoredUrl(f"/files/{upload_id}/0")

    def find(self, caller: str, upload_id: str, at: float | None = None) -> StoredFile | None:
        """The caller's own upload, if it can be used now, or could ``at`` some time."""
        upload = self.store.upload(upload_id)
        if upload is None or upload.owner != caller:
            return None
        fresh = (time.time() if at is None else at) < upload.created_at + UPLOAD_SECONDS
        return upload.file if fresh else None

    async def tidy(self, now: float) -> None:
        """Erase uploads that nobody can need any more, and webhooks that were kept for a day.

        Raises:
            StorageError: the rest waits for the next time.
        """
        await asyncio.to_thread(self.store.forget_events, now - EVENT_SECONDS)
        before = now - UPLOAD_SECONDS - UPLOAD_MARGIN
        while old := await asyncio.to_thread(self.store.old_uploads, before):
            for upload in old:
                await self.storage.delete(f"uploads/{upload.id}/")
                await asyncio.to_thread(self.store.forget_upload, upload.id)


def limited(limit: LimitReached) -> Problem:
    """The answer to whoever reached a limit."""
    detail = f"Nothing was started. Try again in {limit.retry_after:.0f} s."
    return Problem(429, limit.title, detail, retry_after=limit.retry_after)


def network_of(address: str) -> str:
    """What an address counts as: itself, or the /64 of IPv6, which is one subscriber's."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.IPv6Network((found, 64), strict=False))
