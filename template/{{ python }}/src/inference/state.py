"""The state machine of a prediction: pure, so that every order of events can be tested.

Three inputs move a row: what Replicate says (``observe``), what its caller asks (a flag on the
row), and the clock (``next_step``). Observing is monotone: a status never goes back and a terminal
one never changes, so late, repeated and out-of-order messages end in the same state.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from typing import Any

from .prediction import TERMINAL, Row, Status, storable

_RANK: dict[str, int] = {"pending": 0, "starting": 1, "processing": 2} | dict.fromkeys(TERMINAL, 3)

ADOPTION_MARGIN = 60.0
"""Seconds after ``Cancel-After`` in which a lost create may still be found."""


@dataclass(frozen=True, slots=True)
class Remote:
    """What Replicate says about a prediction, in a reply or in a webhook's body."""

    id: str
    status: Status
    output: Any = None
    error: str | None = None
    version: str | None = None
    predict_seconds: float | None = None
    completed_at: float | None = None
    stream_url: str | None = None
    row_id: str | None = None
    data_removed: bool = False


def parse_remote(data: Any) -> Remote:
    """Read Replicate's prediction object.

    Raises:
        ValueError: it is not one; the message names the field.
    """
    try:
        data = storable(data)
    except RecursionError:
        raise ValueError("the prediction is nested too deeply") from None
    if not isinstance(data, dict) or not re.fullmatch(r"[\w-]{1,64}", str(data.get("id", ""))):
        raise ValueError("the prediction has no id")
    status = data.get("status")
    if status not in [*_RANK] or status == "pending":
        raise ValueError(f"the prediction has an unknown status {status!r}")
    error, version = data.get("error"), data.get("version")
    stream_url = _part(data, "urls").get("stream")
    return Remote(
        id=str(data["id"]),
        status=status,
        output=data.get("output"),
        error=None if error is None else str(error),
        version=version if isinstance(version, str) and len(version) <= 64 else None,
        predict_seconds=_number(_part(data, "metrics").get("predict_time")),
        completed_at=_seconds(data.get("completed_at")),
        stream_url=stream_url if isinstance(stream_url, str) else None,
        row_id=row_id_of(data.get("webhook")),
        data_removed=bool(data.get("data_removed")),
    )


def row_id_of(webhook: Any) -> str | None:
    """The row's id inside a webhook URL of ours."""
    if not isinstance(webhook, str):
        return None
    found = re.search(r"[?&]prediction=([0-9a-f]{32})(?:&|$)", webhook)
    return found[1] if found else None


def _part(data: dict[str, Any], name: str) -> dict[str, Any]:
    part = data.get(name)
    return part if isinstance(part, dict) else {}


def _number(value: Any) -> float | None:
    try:
        return float(value) if isinstance(value, (int, float)) else None
    except OverflowError:
        return None


def _seconds(value: Any) -> float | None:
    try:
        seconds = datetime.fromisoformat(value).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
    return seconds if seconds > 0 else None


def observe(row: Row, remote: Remote, now: float) -> Row:
    """The row after Replicate said this about it."""
    if row.replicate_id not in (None, remote.id):
        return row
    if row.replicate_id is None:
        # Found at last: what was waited for is over, and a cancel that was asked for goes out now.
        row = replace(row, failures=0, ask_at=None if row.cancel_requested else row.ask_at)
    row = replace(
        row,
        replicate_id=remote.id,
        version_ran=row.version_ran or remote.version,
        predict_seconds=(
            remote.predict_seconds if row.predict_seconds is None else row.predict_seconds
        ),
        stream_url=row.stream_url or remote.stream_url,
    )
    if row.over or _RANK[remote.status] < _RANK[row.status]:
        return row
    if remote.status not in TERMINAL:
        return replace(row, status=remote.status)
    row = replace(
        row, status=remote.status, error=remote.error, completed_at=remote.completed_at or now
    )
    if row.status != "succeeded":
        return row
    if remote.data_removed and remote.output is None:
        return replace(row, storage="expired", error=EXPIRED)
    if remote.output is None:
        return row
    return replace(row, storage="pending", remote_output=remote.output)


EXPIRED = "Replicate had removed the output (it keeps one for about an hour) before it was stored."
UNKNOWN = (
    "The outcome is unknown: the answer to the request was lost and Replicate did not name the"
    " prediction again. It may have been billed; look for it on replicate.com."
)


def fail(row: Row, error: str, now: float) -> Row:
    """The row failed on our side; no effect on one that is over."""
    return row if row.over else replace(row, status="failed", error=error, completed_at=now)


def cancel_unsent(row: Row, now: float) -> Row:
    """The row canceled without a word to Replicate, which has never heard of it."""
    return replace(row, status="canceled", completed_at=now)


class Step(Enum):
    """What a worker does next about a row."""

    CREATE = "create"
    ADOPT = "adopt"
    CANCEL = "cancel"
    ASK = "ask"
    STORE = "store"
    ERASE = "erase"
    REST = "rest"


def next_step(row: Row, now: float) -> Step:
    """The one thing to do about the row; ``REST`` where nothing is left or it is too early."""
    if row.over:
        if row.deleted_at is not None and not row.erased:
            return Step.ERASE
        return Step.STORE if row.storage == "pending" else Step.REST
    if row.ask_at is not None and now < row.ask_at:
        return Step.REST
    if row.replicate_id is None and row.sent_at is not None:
        return Step.ADOPT
    if row.replicate_id is None and not row.cancel_requested:
        return Step.CREATE
    return Step.CANCEL if row.cancel_requested else Step.ASK


def unknown_since(row: Row, cancel_after: float) -> float:
    """When a row whose create was never answered is given up, in seconds since the epoch."""
    return (row.sent_at or row.created_at) + cancel_after + ADOPTION_MARGIN
