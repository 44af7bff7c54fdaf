"""What a caller can do: start, look at, cancel and delete predictions of their own."""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import time
from collections.abc import Mapping
from typing import Any

import structlog
from pydantic import ValidationError

from .models import REGISTRY
from .prediction import Prediction, Row, StoredFile, present, storable
from .problems import Problem, invalid, invalid_fields, invalid_input, not_found
from .registry import Mode, Model, file_fields, input_fields, own_files, smallest_input
from .settings import Settings
from .state import UNKNOWN, parse_remote
from .storage import Storage
from .store import Event, KeyReused, LimitReached, RunLately, Store
from .uploads import Uploads, limited, network_of
from .webhook import MissingHeaders, WebhookRejected, verify

log = structlog.get_logger()

OWN_FILE = re.compile(r"/files/([0-9a-f]{32})/(0|[1-9][0-9]{0,5})")
PRIME_EVERY = 300.0
"""Seconds for which a model counts as warm after a prediction of it was created."""


class Service:
    """The operations behind the HTTP contract, for any web framework."""

    def __init__(self, settings: Settings, store: Store, storage: Storage) -> None:
        self.settings = settings
        self.store = store
        self.storage = storage
        self.uploads = Uploads(settings, store, storage)

    def models(self) -> list[dict[str, Any]]:
        """Every model of the project as ``GET /api/models`` shows it."""
        return [
            {
                "key": model.key,
                "ref": model.ref,
                "kind": model.kind,
                "mode": self.mode(model),
                "seconds": model.seconds,
                "output": model.output,
                "prime": self.settings.prime and model.kind == "community",
                "input": input_fields(model),
            }
            for model in REGISTRY.values()
        ]

    def mode(self, model: Model[Any]) -> Mode:
        """``run`` where an answer within seconds is likely; a setting overrides it."""
        its = self.settings.model_settings.get(model.key)
        if its is not None and its.mode is not None:
            return its.mode
        if its is not None and its.deployment and model.seconds is not None and model.seconds < 5:
            return "run"
        return model.mode

    def start(
        self,
        caller: str,
        address: str,
        key: str,
        given: dict[str, Any],
        idempotency_key: str | None,
        unless_since: float | None = None,
    ) -> Prediction:
        """Write the row that a worker sends to Replicate; the same key gives the same prediction.

        Raises:
            Problem: 422 unknown model, wrong input or a reused key; 429 a limit is reached.
            RunLately: a prediction of the model was created since ``unless_since``.
        """
        model = REGISTRY.get(key)
        if model is None:
            raise invalid("model", f"unknown; one of {', '.join(REGISTRY)}")
        if idempotency_key is not None and not re.fullmatch(r"[\x21-\x7e]{1,255}", idempotency_key):
            raise invalid("Idempotency-Key", "1 to 255 printable ASCII characters, no spaces")
        try:
            inputs = model.input.model_validate(given).model_dump(
                mode="json", by_alias=True, exclude_unset=True
            )
        except ValidationError as error:
            raise invalid_input(error, "input") from None
        self._check_files(caller, model, inputs)
        its = self.settings.model_settings.get(key)
        now = time.time()
        row = Row(
            id=secrets.token_hex(16),
            owner=caller,
            address=network_of(address),
            model=key,
            ref=model.ref,
            deployment=its.deployment if its else None,
            mode=self.mode(model),
            input=inputs,
            idempotency_key=idempotency_key,
            created_at=now,
            due_at=now,
        )
        try:
            return present(self.store.add(row, self.settings.limits, unless_since))
        except KeyReused:
            raise invalid("Idempotency-Key", "was used for a different request") from None
        except LimitReached as limit:
            raise limited(limit) from None

    def _check_files(self, caller: str, model: Model[Any], inputs: dict[str, Any]) -> None:
        errors = [
            {"field": f"input.{name}", "detail": "no such file of yours"}
            for name in file_fields(model)
            for url in own_files(inputs.get(name))
            if self.file(caller, url) is None
        ]
        if errors:
            raise invalid_fields(errors)

    def get(self, caller: str, row_id: str) -> Prediction:
        """The caller's own prediction; raises Problem 404 for any other."""
        row = self.store.get(row_id) if re.fullmatch("[0-9a-f]{32}", row_id) else None
        if row is None or row.owner != caller:
            raise not_found()
        return present(row)

    def page(
        self, caller: str, cursor: str | None, limit: int
    ) -> tuple[list[Prediction], str | None]:
        """The caller's own, newest first, and the cursor of the next page; Problem 422."""
        before = None
        if cursor is not None:
            match = re.fullmatch(r"(\d{1,12}\.\d{1,9})_([0-9a-f]{32})", cursor)
            if match is None:
                raise invalid("cursor", "take it from next_cursor of the page before")
            before = (float(match[1]), match[2])
        rows = self.store.page(caller, before, limit + 1)
        more = len(rows) > limit
        rows = rows[:limit]
        following = f"{rows[-1].created_at!r}_{rows[-1].id}" if more else None
        return [present(row) for row in rows], following

    def cancel(self, caller: str, row_id: str) -> Prediction:
        """Stop the caller's own prediction and its bill; Problem 404, or 409 where it is over."""
        self.get(caller, row_id)
        row = self.stop(row_id)
        if row is None:
            raise Problem(409, "Already over", "The prediction had ended before it was canceled.")
        return present(row)

    def delete(self, caller: str, row_id: str) -> None:
        """Remove the caller's own prediction with its outputs; Problem 404."""
        self.get(caller, row_id)
        self.stop(row_id, delete=True)

    def stop(self, row_id: str, *, delete: bool = False) -> Row | None:
        """Cancel anybody's prediction, or delete it; None where it was over."""
        act = self.store.delete if delete else self.store.request_cancel
        row = act(row_id, time.time())
        if row is not None and row.over:  # never sent: no worker has anything to do with it
            self.log_over(row)
        return row

    def log_over(self, row: Row) -> None:
        """The line in the log about a prediction that is over; the last one of an id counts."""
        log.info("prediction over", **with_price(row, self.settings), ref=row.ref)

    def prime(self, caller: str, address: str, key: str) -> bool:
        """Wake a community model up by one small prediction; False where it is warm already.

        Raises:
            Problem: 404 unknown model; 409 official, switched off, or no input to prime it with.
        """
        model = REGISTRY.get(key)
        if model is None:
            raise not_found()
        if model.kind == "official":
            raise Problem(409, "Always warm", "Official models need no priming and bill per run.")
        if not self.settings.prime:
            raise Problem(409, "Priming is off", "Set PRIME=1 to allow it; each one is billed.")
        since = time.time() - PRIME_EVERY
        with contextlib.suppress(RunLately):
            self.start(caller, address, key, smallest_input(model), None, since)
            return True
        return False

    def receive(self, body: bytes, headers: Mapping[str, str]) -> None:
        """Keep a webhook for the worker, as ``event`` reads it."""
        if event := self.event(body, headers):
            self.store.receive([event])

    def event(self, body: bytes, headers: Mapping[str, str]) -> Event | None:
        """What to keep of a webhook; it changes nothing before a worker sees it.

        Raises:
            Problem: 400 headers missing, 401 not signed by Replicate.
        """
        now = time.time()
        try:
            event_id = verify(body, headers, self.settings.webhook_keys, now=now)
        except MissingHeaders as error:
            raise Problem(400, "Not a webhook of Replicate", str(error)) from None
        except WebhookRejected as error:
            raise Problem(401, "Not signed by Replicate", str(error)) from None
        try:
            data = storable(json.loads(body))
            remote = parse_remote(data)
        except (ValueError, RecursionError):
            return None
        return Event(event_id, remote.id, remote.row_id, data, now)

    def file(self, caller: str, url: str, at: float | None = None) -> StoredFile | None:
        """The caller's own stored output or upload at ``/files/<id>/<index>``, now or ``at``."""
        match = OWN_FILE.fullmatch(url)
        if match is None:
            return None
        file_id, index = match[1], int(match[2])
        row = self.store.get(file_id)
        if row is not None:
            if row.owner != caller or row.storage != "stored" or index >= len(row.files):
                return None
            return StoredFile(**row.files[index])
        return self.uploads.find(caller, file_id, at) if index == 0 else None


def with_price(row: Row, settings: Settings) -> dict[str, Any]:
    """The one line about a prediction's cost that the log and ``check_usage`` share.

    What Replicate never had costs nothing; ``estimate`` is None where no price is set.
    """
    price = settings.price(row.model, row.predict_seconds or 0.0)
    sent = row.replicate_id is not None or row.error == UNKNOWN
    return {
        "prediction": row.id,
        "replicate_id": row.replicate_id,
        "model": row.model,
        "status": row.status,
        "predict_seconds": row.predict_seconds,
        "estimate": price if price is None or sent else 0.0,
    }
