"""The worker: claims what is due, does the next step, gives it back. Any number may run.

The row is the queue (``due_at``) and the fence (``attempts``): a worker that dies leaves a lease
that runs out, and the next one goes on where it stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from dataclasses import replace
from typing import Any

import structlog

from .gateway import Gateway
from .models import REGISTRY
from .prediction import Row
from .service import Service
from .state import Step, next_step, observe, parse_remote
from .steps import ASK_EVERY, Steps, backoff

log = structlog.get_logger()

LEASE = 30.0
POLL = 0.25
TIDY_EVERY = 600.0
"""In seconds."""
UNUSABLE = "the database cannot be worked with: is it there, and migrated?"


class Worker:
    """Takes due rows and moves each one step, ``worker_concurrency`` of them side by side."""

    def __init__(self, service: Service, gateway: Gateway) -> None:
        self.service = service
        self.store = service.store
        self.settings = service.settings
        self.steps = Steps(service, gateway)

    async def run(self, stop: asyncio.Event) -> None:
        """Work until ``stop`` is set; rows in hand are given back by their lease."""
        lanes = [self._lane(stop) for _ in range(self.settings.worker_concurrency)]
        try:
            await asyncio.gather(*lanes, self._tidy(stop))
        finally:
            await self.steps.aclose()

    async def _lane(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            pause = POLL
            try:
                busy = await self.once()
            except Exception as error:
                # Every lane says so as long as it lasts: one line each.
                log.error(UNUSABLE, error=type(error).__name__, reason=str(error).split("\n")[0])
                busy, pause = False, ASK_EVERY
            if not busy:
                try:
                    await asyncio.wait_for(stop.wait(), pause)
                except TimeoutError:
                    continue

    async def _tidy(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                await self.service.uploads.tidy(time.time())
            except Exception:
                log.exception("old uploads and webhooks are not erased")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), TIDY_EVERY)

    async def once(self) -> bool:
        """Claim one due row and do its next step; False where nothing was due."""
        row = await asyncio.to_thread(self.store.claim, time.time(), LEASE)
        if row is None:
            return False
        renewal = asyncio.create_task(self._renew(row, asyncio.current_task()))
        failed = False
        try:
            await self._advance(row)
        except asyncio.CancelledError:
            if not renewal.done():
                raise
            log.warning("lease lost", prediction=row.id)
        except Exception:
            log.exception("step failed", prediction=row.id)
            failed = True
        finally:
            renewal.cancel()
        if failed:
            later = time.time() + backoff(row.failures + 1)
            new = replace(row, failures=row.failures + 1, due_at=later, leased=False)
            await asyncio.to_thread(self.store.note, row, new)
        return True

    async def _renew(self, row: Row, work: asyncio.Task[Any] | None) -> None:
        mine = True
        end = time.monotonic() + LEASE
        while mine and time.monotonic() < end:
            await asyncio.sleep(LEASE / 3)
            now = time.monotonic()
            try:
                mine = await asyncio.to_thread(self.store.renew, row, time.time() + LEASE)
                end = now + LEASE
            except Exception as error:
                log.warning("lease not renewed", prediction=row.id, reason=repr(error))
        if work is not None:
            work.cancel()

    async def _advance(self, row: Row) -> None:
        events = await asyncio.to_thread(self.store.events, row)
        now = time.time()
        new = row
        for event in events:
            try:
                new = observe(new, parse_remote(event.body), now)
            except ValueError as error:
                log.error("event not understood", prediction=row.id, reason=str(error))
        if new != row:
            if not await asyncio.to_thread(self.store.note, row, new):
                return
            self._report(row, new)
        seen = new
        match next_step(seen, now):
            case Step.CREATE:
                new = await self.steps.create(seen)
            case Step.ADOPT:
                new = await self.steps.adopt(seen)
            case Step.ASK:
                new = await self.steps.ask(seen)
            case Step.CANCEL:
                new = await self.steps.cancel(seen)
            case Step.STORE:
                new = await self.steps.store(seen)
            case Step.ERASE:
                new = await self.steps.erase(seen)
            case Step.REST:
                new = seen
        new = replace(new, due_at=self._due(new), leased=False)
        if not await asyncio.to_thread(self.store.save, seen, new, events):
            log.warning("lease lost", prediction=row.id)
        else:
            self._report(seen, new)

    def _due(self, row: Row) -> float | None:
        """When someone must look again, by what is left to do."""
        now = time.time()
        match next_step(row, now):
            case Step.REST:
                return None if row.over else row.ask_at
            case Step.STORE | Step.ERASE if row.failures:
                return now + backoff(row.failures)
            case _:
                return now

    def _report(self, old: Row, new: Row) -> None:
        """Say that it is over, and again where Replicate said later how long it ran."""
        if new.over and (not old.over or new.predict_seconds != old.predict_seconds):
            self.service.log_over(new)
        model, ran = REGISTRY.get(new.model), new.version_ran
        if new.over > old.over and model and model.version and ran and ran != model.version:
            names = {"prediction": new.id, "model": new.model, "pinned": model.version, "ran": ran}
            log.error("another version ran than the pinned one", **names)


def run_worker(service: Service, stop: threading.Event) -> None:
    """Work in an event loop of its own until ``stop`` is set."""

    async def work() -> None:
        stopped = asyncio.Event()
        worker = asyncio.create_task(Worker(service, Gateway(service.settings)).run(stopped))
        while not stop.is_set() and not worker.done():
            await asyncio.sleep(0.2)
        stopped.set()
        await worker

    asyncio.run(work())
