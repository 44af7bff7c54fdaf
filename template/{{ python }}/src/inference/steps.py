"""The steps of a prediction's life: what a worker does about a row, once it has the lease."""

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
from .prediction import Row, without_content
from .registry import file_fields, own_files
from .service import Service
from .state import EXPIRED, UNKNOWN, cancel_unsent, fail, observe, unknown_since
from .storage import StorageError

log = structlog.get_logger()

ASK_EVERY = 2.0
ASK_EVERY_WITH_WEBHOOK = 60.0
GIVE_UP_SENDING = 3600.0
GIVE_UP_ASKING = 86_400.0
GIVE_UP_STORING = 86_400.0
"""All in seconds; nothing asks Replicate about one prediction more often than ``ASK_EVERY``."""


class Steps:
    """One method for each step that leaves the process; each returns the row as it is then."""

    def __init__(self, service: Service, gateway: Gateway) -> None:
        self.service = service
        self.settings = service.settings
        self.gateway = gateway
        self._http = httpx.AsyncClient(timeout=30, follow_redirects=False)
        self._allowed = AllowedHosts(
            origin=self.settings.emulator_origin,
            token=self.settings.replicate_api_token.get_secret_value(),
        )

    async def aclose(self) -> None:
        await self._http.aclose()
        await self.gateway.aclose()

    async def create(self, row: Row) -> Row:
        """Send it, once."""
        now = time.time()
        if now > row.created_at + GIVE_UP_SENDING:
            return fail(row, "Replicate could not be reached for an hour; nothing was sent.", now)
        try:
            inputs = await self._published(row)
        except Refused as refusal:
            return fail(row, str(refusal), now)
        except (Throttled, NotSent, NoAnswer, StorageError):
            return unsent(row, backoff(row.failures + 1))
        if not await asyncio.to_thread(self.service.store.mark_sent, row, now):
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
            value = inputs.get(name)
            public = {url: await self._public(row, name, url) for url in own_files(value)}
            if isinstance(value, list):
                inputs[name] = [public.get(url, url) for url in value]
            elif isinstance(value, str):
                inputs[name] = public.get(value, value)
        return inputs

    async def _public(self, row: Row, name: str, url: str) -> str:
        """A URL of the file for Replicate; Refused where it is not there any more."""
        stored = await asyncio.to_thread(self.service.file, row.owner, url, row.created_at)
        if stored is None:
            raise Refused(f"The file for {name} is not there any more.")
        signed = await self.service.storage.sign(stored.key, 3600)
        return signed or await self.gateway.upload(
            stored.key.rsplit("/", 1)[-1], stored.content_type, self.service.storage.get(stored.key)
        )

    async def adopt(self, row: Row) -> Row:
        """Look for a prediction whose create was never answered; it is not sent again."""
        end = unknown_since(row, self.settings.cancel_after_seconds)
        remote = None
        try:
            remote = await self.gateway.find(row)
        except (Refused, Throttled, NotSent, NoAnswer):
            end += GIVE_UP_ASKING  # nobody has said that it is not there
        now = time.time()
        if remote is not None:
            found = observe(row, remote, now)
            return found if row.cancel_requested else replace(found, ask_at=self._ask_at())
        if now > end:
            return fail(row, UNKNOWN, now)
        failures = row.failures + 1
        return replace(row, ask_at=min(now + 5 * ASK_EVERY * failures, end + 1), failures=failures)

    async def ask(self, row: Row) -> Row:
        """Hear from Replicate how it is."""
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

    async def cancel(self, row: Row) -> Row:
        """Stop it, and its bill."""
        if row.replicate_id is None:
            return cancel_unsent(row, time.time())
        try:
            remote = await self.gateway.cancel(row.replicate_id)
        except (Refused, Throttled, NotSent, NoAnswer) as error:
            log.warning("cancel not confirmed", prediction=row.id, reason=str(error))
            return await self.ask(row)
        return replace(observe(row, remote, time.time()), ask_at=self._ask_at(soon=True))

    async def store(self, row: Row) -> Row:
        """Bring its output into our storage."""
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

    async def erase(self, row: Row) -> Row:
        """Remove what was made for it."""
        try:
            await self.service.storage.delete(f"{row.id}/")
        except StorageError as error:
            log.warning("output not erased yet", prediction=row.id, reason=str(error))
            return replace(row, failures=row.failures + 1)
        return without_content(row)

    def _ask_at(self, *, soon: bool = False) -> float:
        quiet = bool(self.settings.public_url) and not soon
        return time.time() + (ASK_EVERY_WITH_WEBHOOK if quiet else ASK_EVERY)


def backoff(failures: int) -> float:
    """Seconds until the next try."""
    return min(2.0**failures, 300.0)


def unsent(row: Row, seconds: float) -> Row:
    """Nothing was created: the row may be sent again in so many seconds."""
    return replace(row, sent_at=None, ask_at=time.time() + seconds, failures=row.failures + 1)
