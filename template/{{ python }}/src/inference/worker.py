"""The worker: claims what is due, does the next step, gives it back. Any number may run.

The row is the queue (``due_at``) and the fence (``attempts``): a worker that dies leaves a lease
that runs out, and the next one goes on where it stopped.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict, replace
from typing import Any

import httpx
import structlog

from .gateway import Gateway, NoAnswer, NotSent, Refused, Throttled
from .models import REGISTRY
from .outputs import AllowedHosts, OutputExpired, OutputRefused, store_output
from .prediction import Row
from .service import Service, file_fields, with_price, without_content
from .state import (
    EXPIRED,
    UNKNOWN,
    Step,
    cancel_unsent,
    fail,
    next_step,
    observe,
    parse_remote,
    unknown_since,
)
from .storage import StorageError

log = structlog.get_logger()

LEASE = 30.0
POLL = 0.25
ASK_EVERY = 2.0
ASK_EVERY_WITH_WEBHOOK = 60.0
GIVE_UP_SENDING = 3600.0
GIVE_UP_ASKING = 86_400.0
GIVE_UP_STORING = 86_400.0
"""All in seconds; nothing asks Replicate about one prediction more often than ``ASK_EVERY``."""


class Worker:
    """Takes due rows and moves each one step, ``worker_concurrency`` of them side by side."""

    def __init__(self, service: Service, gateway: Gateway) -> None:
        self.service = service
        self.store = service.store
        self.settings = service.settings
        self.gateway = gateway
        self._http = httpx.AsyncClient(timeout=30, follow_redirects=False)
        self._allowed = AllowedHosts(
            origin=self.settings.emulator_origin,
            token=self.settings.replicate_api_token.get_secret_value(),
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Work until ``stop`` is set; rows in hand are given back by their lease."""
        lanes = [self._lane(stop) for _ in range(self.settings.worker_concurrency)]
        try:
            await asyncio.gather(*lanes)
        finally:
            await self._http.aclose()
            await self.gateway.aclose()

    async def _lane(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            pause = POLL
            try:
                busy = await self.once()
            except Exception:
                log.exception("the database cannot be worked with")
                busy, pause = False, ASK_EVERY
            if not busy:
                try:
                    await asyncio.wait_for(stop.wait(), pause)
                except TimeoutError:
                    continue

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
        if new != row and not await asyncio.to_thread(self.store.note, row, new):
            return
        seen = new
        match next_step(seen, now):
            case Step.CREATE:
                new = await self._create(seen)
            case Step.ADOPT:
                new = await self._adopt(seen)
            case Step.ASK:
                new = await self._ask(seen)
            case Step.CANCEL:
                new = await self._cancel(seen)
            case Step.STORE:
                new = await self._store(seen)
            case Step.ERASE:
                new = await self._erase(seen)
            case Step.REST:
                new = seen
        new = replace(new, due_at=self._due(new), leased=False)
        if await asyncio.to_thread(self.store.save, seen, new, events) and new.over > row.over:
            log.info("prediction over", **with_price(new, self.settings), ref=new.ref)
            self._report_drift(new)

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

    def _ask_at(self, *, soon: bool = False) -> float:
        quiet = bool(self.settings.public_url) and not soon
        return time.time() + (ASK_EVERY_WITH_WEBHOOK if quiet else ASK_EVERY)

    async def _create(self, row: Row) -> Row:
        now = time.time()
        if now > row.created_at + GIVE_UP_SENDING:
            return fail(row, "Replicate could not be reached for an hour; nothing was sent.", now)
        try:
            inputs = await self._published(row)
        except Refused as refusal:
            return fail(row, str(refusal), now)
        except (Throttled, NotSent, NoAnswer, StorageError):
            return unsent(row, backoff(row.failures + 1))
        if not await asyncio.to_thread(self.store.mark_sent, row, now):
            return row
        row = replace(row, sent_at=now, ask_at=self._ask_at(soon=True))
        try:
            remote = await self.gateway.create(row, inputs, self._wait(row))
        except Refused as refusal:
            return fail(row, str(refusal), time.time())
        except Throttled as throttled:
            log.warning("throttled", prediction=row.id, retry_after=throttled.retry_after)
            return unsent(row, throttled.retry_after)
        except NotSent:
            return unsent(row, backoff(row.failures + 1))
        except NoAnswer as error:
            log.warning("no answer to a create", prediction=row.id, reason=str(error))
            return row
        row = observe(row, remote, time.time())
        return replace(row, ask_at=self._ask_at(), failures=0)

    def _wait(self, row: Row) -> int:
        """For how long Replicate holds its answer; not where text can be shown as it comes."""
        model = REGISTRY.get(row.model)
        streams = model is not None and model.output == "text-stream"
        return self.settings.run_wait_seconds if row.mode == "run" and not streams else 0

    async def _published(self, row: Row) -> dict[str, Any]:
        """The input with files of ours in a form that Replicate can fetch."""
        inputs = dict(row.input)
        model = REGISTRY.get(row.model)
        for name in file_fields(model) if model else ():
            url = str(inputs.get(name, ""))
            if not url.startswith("/"):
                continue
            stored = await asyncio.to_thread(self.service.file, row.owner, url)
            if stored is None:
                raise Refused(f"The file for {name} is not there any more.")
            signed = await self.service.storage.sign(stored.key, 3600)
            inputs[name] = signed or await self.gateway.upload(
                stored.key.rsplit("/", 1)[-1],
                stored.content_type,
                self.service.storage.get(stored.key),
            )
        return inputs

    async def _adopt(self, row: Row) -> Row:
        """Look for a prediction whose create was never answered; it is not sent again."""
        try:
            remote = await self.gateway.find(row)
        except (Refused, Throttled, NotSent, NoAnswer):
            remote = None
        now = time.time()
        if remote is not None:
            found = observe(row, remote, now)
            return found if row.cancel_requested else replace(found, ask_at=self._ask_at())
        if now > unknown_since(row, self.settings.cancel_after_seconds):
            return fail(row, UNKNOWN, now)
        failures = row.failures + 1
        return replace(row, ask_at=now + 5 * ASK_EVERY * failures, failures=failures)

    async def _ask(self, row: Row) -> Row:
        assert row.replicate_id is not None
        try:
            remote = await self.gateway.get(row.replicate_id)
        except Throttled as throttled:
            return replace(row, ask_at=time.time() + max(ASK_EVERY, throttled.retry_after))
        except (Refused, NotSent, NoAnswer) as error:
            # It goes on at Replicate whatever we are told here, say because of a wrong token.
            gone = isinstance(error, Refused) and error.status == 404
            end = unknown_since(row, self.settings.cancel_after_seconds)
            if time.time() > end + (0 if gone else GIVE_UP_ASKING):
                return fail(row, str(error), time.time())
            return replace(row, ask_at=self._ask_at(soon=row.cancel_requested))
        return replace(
            observe(row, remote, time.time()), ask_at=self._ask_at(soon=row.cancel_requested)
        )

    async def _cancel(self, row: Row) -> Row:
        if row.replicate_id is None:
            return cancel_unsent(row, time.time())
        try:
            remote = await self.gateway.cancel(row.replicate_id)
        except (Refused, Throttled, NotSent, NoAnswer) as error:
            log.warning("cancel not confirmed", prediction=row.id, reason=str(error))
            return await self._ask(row)
        return replace(observe(row, remote, time.time()), ask_at=self._ask_at(soon=True))

    async def _store(self, row: Row) -> Row:
        model = REGISTRY.get(row.model)
        try:
            files, output = await store_output(
                row.id,
                row.remote_output,
                model.output if model else "json",
                storage=self.service.storage,
                client=self._http,
                allowed=self._allowed,
                max_bytes=self.settings.max_output_bytes,
            )
        except OutputExpired:
            log.error("output expired before it was stored", prediction=row.id)
            return replace(row, storage="expired", error=EXPIRED, remote_output=None)
        except OutputRefused as refusal:
            log.error("output refused", prediction=row.id, reason=str(refusal))
            return replace(row, storage="failed", error=str(refusal), remote_output=None)
        except Exception as error:  # whatever it was, the next try may go well
            log.warning("output not stored yet", prediction=row.id, reason=str(error))
            if time.time() > (row.completed_at or row.created_at) + GIVE_UP_STORING:
                return replace(row, storage="failed", error=str(error), remote_output=None)
            return replace(row, failures=row.failures + 1)
        return replace(
            row,
            storage="stored",
            files=[asdict(file) for file in files],
            output=output,
            remote_output=None,
            failures=0,
        )

    async def _erase(self, row: Row) -> Row:
        try:
            await self.service.storage.delete(f"{row.id}/")
        except StorageError as error:
            log.warning("output not erased yet", prediction=row.id, reason=str(error))
            return replace(row, failures=row.failures + 1)
        return without_content(row)

    def _report_drift(self, row: Row) -> None:
        model = REGISTRY.get(row.model)
        if model and model.version and row.version_ran and row.version_ran != model.version:
            log.error(
                "another version ran than the pinned one",
                prediction=row.id,
                model=row.model,
                pinned=model.version,
                ran=row.version_ran,
            )


def backoff(failures: int) -> float:
    """Seconds until the next try."""
    return min(2.0**failures, 300.0)


def unsent(row: Row, seconds: float) -> Row:
    """Nothing was created: the row may be sent again in so many seconds."""
    return replace(row, sent_at=None, ask_at=time.time() + seconds, failures=row.failures + 1)
