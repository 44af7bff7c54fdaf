"""The webhook: those that come at the same time are kept together, and answered after it."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from fastapi import Request, Response

from inference.store import Event, Store


class Receiving:
    """Keeps webhooks that wait at the same time in one transaction, in threads of its own."""

    def __init__(self, store: Store, threads: int) -> None:
        self._store = store
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="webhooks")
        self._turns = asyncio.Semaphore(threads)
        self._batch: list[Event] = []

    async def keep(self, event: Event) -> None:
        if not self._batch:
            self._kept = asyncio.create_task(self._together())
        self._batch.append(event)
        try:
            await asyncio.shield(self._kept)
        except Exception:  # perhaps it is about another one
            await self._receive([event])

    async def _together(self) -> None:
        async with self._turns:
            batch, self._batch = self._batch, []
            await self._receive(batch)

    async def _receive(self, batch: list[Event]) -> None:
        await asyncio.get_running_loop().run_in_executor(self._threads, self._store.receive, batch)


async def webhook(request: Request) -> Response:
    body, state = await request.body(), request.app.state
    if event := state.service.event(body, request.headers):
        await state.receiving.keep(event)
    return Response("{}", media_type="application/json")
