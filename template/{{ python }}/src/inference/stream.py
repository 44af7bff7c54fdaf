"""Text as it comes: Replicate's stream of a running prediction, piece by piece."""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import httpx
from httpx_sse import aconnect_sse


def allowed_stream(url: str, emulator_origin: str | None) -> bool:
    """Whether the URL is Replicate's (https, replicate.com) or the emulator's."""
    parts = urlsplit(url)
    if emulator_origin is not None and f"{parts.scheme}://{parts.netloc}" == emulator_origin:
        return True
    host = parts.hostname or ""
    return parts.scheme == "https" and (host == "replicate.com" or host.endswith(".replicate.com"))


async def text_pieces(url: str, emulator_origin: str | None) -> AsyncIterator[str]:
    """The pieces of a text as they are made; ends early, without an error, when the stream breaks.

    What the caller saw is only a preview: the stored output is the whole text.
    """
    if not allowed_stream(url, emulator_origin):
        return
    try:
        async with (
            httpx.AsyncClient(timeout=httpx.Timeout(10, read=60)) as client,
            aconnect_sse(client, "GET", url) as source,
        ):
            async for event in source.aiter_sse():
                if event.event == "output":
                    yield event.data
                elif event.event in ("done", "error"):
                    return
    except httpx.HTTPError:
        return
