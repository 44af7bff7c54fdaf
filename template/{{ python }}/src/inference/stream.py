"""A prediction as it goes on: server-sent events, with the pieces of a text as they are made."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import httpx
from httpx_sse import aconnect_sse

from .prediction import Prediction, Row, as_json, changed, settled
from .problems import Problem
from .settings import Settings

Hold = Callable[[float, Callable[[Prediction], bool]], Awaitable[Prediction]]
"""Looks at one prediction until it is enough, or so many seconds are over."""


async def events(first: Prediction, hold: Hold, settings: Settings) -> AsyncIterator[bytes]:
    """The body of ``GET …/events``: ``prediction`` at each change, ``output``, at last ``done``.

    Where the prediction is deleted meanwhile, the stream ends without ``done``.
    """
    end = time.monotonic() + settings.cancel_after_seconds + 60
    prediction = first
    streamed = False
    yield _event("prediction", as_json(prediction))
    while not settled(prediction) and time.monotonic() < end:
        before = prediction.row
        if before.stream_url is not None and not streamed and not before.over:
            streamed = True
            async for piece in text_pieces(before.stream_url, settings.emulator_origin):
                yield _event("output", piece)
        try:
            prediction = await hold(15, partial(_news, before))
        except Problem:  # it was deleted meanwhile
            return
        yield _event("prediction", as_json(prediction))
    yield _event("done", as_json(prediction))


def _news(before: Row, now: Prediction) -> bool:
    return changed(before, now.row) or before.stream_url != now.row.stream_url


def _event(name: str, data: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


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
