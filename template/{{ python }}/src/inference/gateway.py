"""The only door to Replicate: nothing else imports its SDK.

A create is sent once and never repeated blindly, since Replicate knows no idempotency key and a
second one bills again; every create carries ``Cancel-After``, so that a time-out ends the bill.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx
import replicate

from .prediction import Row
from .settings import Settings
from .state import Remote, parse_remote

_TIMEOUT = 15.0
_PAGES = 20


class Refused(Exception):
    """Replicate said no for good; the message is for the person who asked."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Throttled(Exception):
    """Too many requests (429): nothing was created; ``retry_after`` in seconds."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"throttled, retry after {retry_after:g} s")
        self.retry_after = retry_after


class NotSent(Exception):
    """The request never reached Replicate: it may be sent again."""


class NoAnswer(Exception):
    """The request may have reached Replicate: whether it took effect is unknown."""


class Gateway:
    """Replicate's API, as far as a prediction's life needs it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client = replicate.AsyncReplicate(
            bearer_token=settings.replicate_api_token.get_secret_value(),
            base_url=settings.replicate_base_url,
            max_retries=0,
            timeout=_TIMEOUT,
        )
        # The SDK imports them when they are first read: not between a row's mark and its create.
        self._predictions = self._client.predictions.with_raw_response
        self._deployed = self._client.deployments.predictions.with_raw_response

    async def aclose(self) -> None:
        await self._client.close()

    async def create(self, row: Row, inputs: dict[str, Any], wait: int = 0) -> Remote:
        """Create the prediction, once; ``wait`` up to so many seconds for its end.

        Raises:
            Refused, Throttled, NotSent: nothing was created.
            NoAnswer: it may have been.
        """
        options: dict[str, Any] = {
            "input": inputs,
            "cancel_after": f"{self._settings.cancel_after_seconds}s",
            "timeout": _TIMEOUT + wait,
        }
        if wait:
            options["prefer"] = f"wait={wait}"
        if url := self.webhook_url(row):
            options |= {"webhook": url, "webhook_events_filter": ["start", "completed"]}
        if not row.deployment:
            return await _reply(self._predictions.create(version=row.ref, **options))
        owner, _, name = row.deployment.partition("/")
        return await _reply(
            self._deployed.create(deployment_owner=owner, deployment_name=name, **options)
        )

    async def get(self, replicate_id: str) -> Remote:
        """What Replicate says about the prediction now; raises as ``create`` does."""
        return await _reply(self._predictions.get(prediction_id=replicate_id))

    async def cancel(self, replicate_id: str) -> Remote:
        """Ask for the cancellation, which may be repeated; raises as ``create`` does."""
        return await _reply(self._predictions.cancel(prediction_id=replicate_id))

    async def find(self, row: Row) -> Remote | None:
        """The prediction whose webhook names the row, among those created when it was sent."""
        sent = row.sent_at or row.created_at
        query = urlencode(
            {"created_after": _instant(sent - 60), "created_before": _instant(sent + 180)}
        )
        for _ in range(_PAGES):
            data = await self._read(f"/predictions?{query}")
            for item in data.get("results", []):
                try:
                    remote = parse_remote(item)
                except ValueError:
                    continue
                if remote.row_id == row.id:
                    return await self.get(remote.id)
            # Only its query: the token goes to the API's own host and to no other.
            query = urlsplit(str(data.get("next") or "")).query
            if not query:
                break
        return None

    async def upload(self, name: str, content_type: str, chunks: AsyncIterator[bytes]) -> str:
        """Hand Replicate a file that it cannot fetch from us; returns its URL (24 h).

        Raises as ``create`` does.
        """
        content = b"".join([chunk async for chunk in chunks])
        with _translated():
            reply = await self._client.files.create(
                content=(name, content, content_type), timeout=_TIMEOUT * 10
            )
        return str(reply.urls.get)

    async def describe(self, owner_name: str) -> dict[str, Any]:
        """Replicate's record of a model; raises as ``create`` does."""
        return await self._read(f"/models/{owner_name}")

    async def webhook_secret(self) -> str:
        """The secret that signs this account's webhooks; raises as ``create`` does."""
        return str((await self._read("/webhooks/default/secret"))["key"])

    async def train(self, ref: str, destination: str, inputs: dict[str, Any]) -> dict[str, Any]:
        """Start a training, once, of ``owner/name:<version>``; raises as ``create`` does."""
        model, _, version = ref.partition(":")
        body = {"destination": destination, "input": inputs}
        with _translated():
            reply = await self._client.post(
                f"/models/{model}/versions/{version}/trainings", cast_to=httpx.Response, body=body
            )
            started: dict[str, Any] = reply.json()
        return started

    async def training(self, training_id: str) -> dict[str, Any]:
        """Replicate's record of a training; raises as ``create`` does."""
        return await self._read(f"/trainings/{training_id}")

    async def _read(self, path: str) -> dict[str, Any]:
        with _translated():
            reply = await self._client.get(path, cast_to=httpx.Response)
            found = reply.json()
        if not isinstance(found, dict):
            raise NoAnswer(f"{path} is no JSON object")
        return found

    def webhook_url(self, row: Row) -> str | None:
        """Where Replicate reports the row; None where it cannot reach us."""
        base = self._settings.public_url.rstrip("/")
        return f"{base}/api/webhooks/replicate?prediction={row.id}" if base else None


async def _reply(call: Awaitable[Any]) -> Remote:
    with _translated():
        reply = await call
        return parse_remote(reply.http_response.json())


@contextmanager
def _translated() -> Iterator[None]:
    """What the SDK raises, in the words of this module."""
    try:
        yield
    except replicate.APIStatusError as error:
        raise _refusal(error) from error
    except replicate.APIConnectionError as error:
        raise _broken(error) from error
    except (ValueError, RecursionError) as error:
        raise NoAnswer(str(error)) from error


def _instant(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _broken(error: replicate.APIConnectionError) -> NotSent | NoAnswer:
    """A connection that never opened sent nothing; any other break may have."""
    if isinstance(error.__cause__, (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)):
        return NotSent("Replicate could not be reached")
    return NoAnswer("the connection to Replicate broke before its answer")


def _refusal(error: replicate.APIStatusError) -> Refused | Throttled | NoAnswer:
    body = error.body if isinstance(error.body, dict) else {}
    detail = str(body.get("detail") or error.response.reason_phrase).strip()
    title = str(body.get("title") or f"HTTP {error.status_code}")
    if error.status_code == 429:
        after = body.get("retry_after") or error.response.headers.get("retry-after") or 10
        try:
            return Throttled(max(1.0, float(after)))
        except (TypeError, ValueError):
            return Throttled(10.0)
    if error.status_code >= 500 or error.status_code == 408:
        return NoAnswer(f"{title}: {detail}")
    hint = {
        401: " Check REPLICATE_API_TOKEN.",
        402: " Nothing was run and nothing will be tried again: see replicate.com/account/billing.",
    }.get(error.status_code, "")
    return Refused(f"Replicate refused: {title}. {detail}{hint}", error.status_code)
