"""Waiting in a server of threads: as many may as there are threads for, and a few stay free.

Whoever waits for a prediction, or takes long to read an answer, holds a thread. ``SLOTS`` of them
may; beyond, a wait is over at once, so that there is always a thread to take a webhook.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator

from inference.contract import LOOK_EVERY
from inference.prediction import Prediction
from inference.problems import Problem

SLOTS = 128
THREADS = SLOTS + 32

_slots = threading.BoundedSemaphore(SLOTS)
# Those who wait look in turn, so that they never take the database's connections from webhooks.
_looking = threading.BoundedSemaphore(2)


def watch(
    look: Callable[[], Prediction], seconds: float, enough: Callable[[Prediction], bool]
) -> Prediction:
    """Look again until it is enough or the time is out."""
    end = time.monotonic() + seconds
    while True:
        with _looking:
            prediction = look()
        if enough(prediction) or time.monotonic() >= end:
            return prediction
        time.sleep(LOOK_EVERY)


def hold(
    look: Callable[[], Prediction], seconds: float, enough: Callable[[Prediction], bool]
) -> Prediction:
    """``watch``, but once only where no slot is left."""
    if not _slots.acquire(blocking=False):
        return look()
    try:
        return watch(look, seconds, enough)
    finally:
        _slots.release()


class Stream:
    """The parts for a thread that may block; it holds a slot until it is closed.

    Raises:
        Problem: 503 where no slot is left.
    """

    def __init__(self, parts: AsyncIterator[bytes]) -> None:
        if not _slots.acquire(blocking=False):
            raise Problem(503, "Too many wait", "Try again in a moment.", retry_after=1)
        self._parts = parts
        self._runner = asyncio.Runner()
        self._open = True

    def __iter__(self) -> Iterator[bytes]:
        while part := self._runner.run(self._next()):
            yield part

    async def _next(self) -> bytes:
        return await anext(self._parts, b"")

    def close(self) -> None:
        if self._open:
            self._open = False
            self._runner.close()
            _slots.release()
