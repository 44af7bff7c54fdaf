"""What a prediction is: the row that is kept of it, and the three things a caller can be shown."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal, NewType

Status = Literal["pending", "starting", "processing", "succeeded", "failed", "canceled", "aborted"]
StorageState = Literal["none", "pending", "stored", "expired", "failed"]

TERMINAL: frozenset[str] = frozenset({"succeeded", "failed", "canceled", "aborted"})

StoredUrl = NewType("StoredUrl", str)
"""A root-relative URL of ours, ``/files/<id>/<index>``; never one of Replicate's, which expire."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """An object in our own storage; ``size`` in bytes, ``sha256`` in hex."""

    key: str
    content_type: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Row:
    """One prediction as the database keeps it: the truth about it and its place in the queue.

    Times are seconds since the epoch. ``due_at`` says when a worker must look (None: at rest);
    ``attempts`` counts the claims and fences every write of a worker.
    """

    id: str
    owner: str
    address: str
    model: str
    ref: str
    input: dict[str, Any]
    created_at: float
    mode: str = "webhook"
    deployment: str | None = None
    idempotency_key: str | None = None
    status: Status = "pending"
    storage: StorageState = "none"
    replicate_id: str | None = None
    version_ran: str | None = None
    stream_url: str | None = None
    remote_output: Any = None
    output: Any = None
    files: list[dict[str, Any]] = field(default_factory=list)
    error: str | None = None
    predict_seconds: float | None = None
    completed_at: float | None = None
    sent_at: float | None = None
    ask_at: float | None = None
    cancel_requested: bool = False
    deleted_at: float | None = None
    erased: bool = False
    due_at: float | None = None
    leased: bool = False
    attempts: int = 0
    failures: int = 0

    @property
    def over(self) -> bool:
        return self.status in TERMINAL

    @property
    def settled(self) -> bool:
        """Over, and its output stored, lost or never there: nothing about it changes any more."""
        return self.over and self.storage != "pending"


@dataclass(frozen=True, slots=True)
class Running:
    """Replicate has not finished it, or its output is still on the way into our storage."""

    row: Row


@dataclass(frozen=True, slots=True)
class Ended:
    """Over without an output that can be shown: failed, canceled, aborted, expired, or empty."""

    row: Row


@dataclass(frozen=True, slots=True)
class Succeeded:
    """Succeeded and stored: the only one that has an output; its URLs are ``StoredUrl``."""

    row: Row
    output: Any


Prediction = Running | Ended | Succeeded


def present(row: Row) -> Prediction:
    """The row as its caller may see it."""
    if row.status == "succeeded" and row.storage == "stored":
        return Succeeded(row, row.output)
    return Ended(row) if row.settled else Running(row)


def settled(prediction: Prediction) -> bool:
    return prediction.row.settled


def changed(before: Row, after: Row) -> bool:
    """Whether a caller who waits has something new to see."""
    return (before.status, before.storage) != (after.status, after.storage)


def as_json(prediction: Prediction) -> dict[str, Any]:
    """The JSON of the HTTP contract; times in RFC 3339, UTC."""
    row = prediction.row
    return {
        "id": row.id,
        "replicate_id": row.replicate_id,
        "model": row.model,
        "ref": row.ref,
        "version_ran": row.version_ran,
        "status": row.status,
        "storage": row.storage,
        "output": prediction.output if isinstance(prediction, Succeeded) else None,
        "error": row.error,
        "metrics": {"predict_seconds": row.predict_seconds},
        "created_at": rfc3339(row.created_at),
        "completed_at": None if row.completed_at is None else rfc3339(row.completed_at),
    }


def without_content(row: Row) -> Row:
    """What stays of a deleted prediction: its accounting."""
    return replace(
        row, input={}, output=None, remote_output=None, files=[], storage="none", erased=True
    )


def rfc3339(seconds: float) -> str:
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def storable(value: Any) -> Any:
    """The JSON value as every database and JSON reader takes it.

    Python reads more than that: numbers that are none (here null), halves of surrogate pairs
    (here ?), and NUL, which PostgreSQL has no place for.
    """
    if isinstance(value, str):
        fits = value.isascii() and "\0" not in value
        return value if fits else value.encode("utf-8", "replace").decode().replace("\0", "")
    if isinstance(value, dict):
        return {storable(name): storable(part) for name, part in value.items()}
    if isinstance(value, list):
        return [storable(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
