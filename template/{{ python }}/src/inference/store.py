"""The port to the database: what ``inference`` needs of it, and nothing about how."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from .prediction import Row, StoredFile


@dataclass(frozen=True)
class Event:
    """A verified webhook, kept before anything is done about it; ``id`` is its webhook-id."""

    id: str
    replicate_id: str
    row_id: str | None
    body: dict[str, Any]
    received_at: float


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that a caller sent, to be used as an input; ``file`` is None until it is stored."""

    id: str
    owner: str
    address: str
    created_at: float
    file: StoredFile | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that may be started: per caller and address a minute, and by everyone a UTC day.

    Uploads are counted apart from predictions, by the same numbers.
    """

    caller_per_minute: int
    address_per_minute: int
    daily_predictions: int
    daily_seconds: float


class LimitReached(Exception):
    """No prediction, or no upload, may be started now; ``retry_after`` in seconds."""

    def __init__(self, title: str, retry_after: float) -> None:
        super().__init__(title)
        self.title = title
        self.retry_after = retry_after


Window = tuple[int, float | None]
"""How many were created in the last minute, and when the first of them."""


def check_limits(
    limits: Limits, now: float, caller: Window, address: Window, today: tuple[int, float]
) -> None:
    """Raise LimitReached where one more would be too many; ``today`` is number and seconds."""
    for title, (made, first), most in (
        ("Too many requests", caller, limits.caller_per_minute),
        ("Too many requests from this address", address, limits.address_per_minute),
    ):
        if made >= most:
            raise LimitReached(title, (first or now) + 60 - now)
    if today[0] >= limits.daily_predictions or today[1] >= limits.daily_seconds:
        raise LimitReached("The daily ceiling is reached", midnight(now) + 86_400 - now)


def midnight(now: float) -> float:
    """When the UTC day began."""
    return math.floor(now / 86_400) * 86_400.0


def changes(old: Row, new: Row) -> dict[str, Any]:
    """The columns that differ, with their new values."""
    before = asdict(old)
    return {name: value for name, value in asdict(new).items() if value != before[name]}


class KeyReused(Exception):
    """The caller used this idempotency key for another request."""


class RunLately(Exception):
    """Somebody started a prediction of this model already."""


class Store(Protocol):
    """Predictions, events and uploads. Every method is one transaction."""

    def add(self, row: Row, limits: Limits, unless_since: float | None = None) -> Row:
        """Insert the row, or return the one that its owner made with the same key.

        Raises:
            KeyReused: the same key came with another model or input, or its row was deleted.
            RunLately: a prediction of the model was created since ``unless_since``.
            LimitReached: a limit counted over the stored rows is reached.
        """

    def get(self, row_id: str) -> Row | None:
        """The row, unless it is not there or was deleted."""

    def page(self, owner: str, before: tuple[float, str] | None, limit: int) -> list[Row]:
        """The owner's rows, newest first, those created before ``(created_at, id)``."""

    def request_cancel(self, row_id: str, now: float) -> Row | None:
        """Cancel at once what was never sent, else ask the worker to; None where it is over.

        A worker that holds what is canceled at once is fenced out, as by another worker's claim.
        """

    def delete(self, row_id: str, now: float) -> Row | None:
        """``request_cancel``, and hide the row; a worker erases input, output and files."""

    def receive(self, events: Sequence[Event]) -> int:
        """Keep the events and make their rows due; how many were not known already."""

    def claim(self, now: float, lease: float) -> Row | None:
        """Take the longest due row for ``lease`` seconds; no other worker gets it meanwhile."""

    def renew(self, row: Row, until: float) -> bool:
        """Lengthen the lease; False where another worker has the row."""

    def mark_sent(self, row: Row, now: float) -> bool:
        """Note that the create goes out now; False where the row was canceled or lost."""

    def events(self, row: Row) -> Sequence[Event]:
        """Events about the row that no worker has handled, oldest first."""

    def save(self, old: Row, new: Row, handled: Sequence[Event] = ()) -> bool:
        """Write what changed and give the lease back; False where another worker has the row.

        A row with events that came meanwhile is due at once, and so is one that was deleted, or
        asked to be canceled. What the handled events said is not kept, only their ids.
        """

    def note(self, old: Row, new: Row) -> bool:
        """Write what changed and keep the lease; False where another worker has the row."""

    def add_upload(self, upload: Upload, limits: Limits) -> None:
        """Insert the upload, before its file is stored.

        Raises:
            LimitReached: a limit counted over the uploads is reached; seconds are not counted.
        """

    def keep_upload(self, upload: Upload) -> None:
        """Write the ``file`` of an upload that is stored now."""

    def upload(self, upload_id: str) -> Upload | None:
        """The upload, with or without its file; None where there is none."""

    def old_uploads(self, before: float) -> list[Upload]:
        """At most 100 uploads created before then, oldest first."""

    def forget_upload(self, upload_id: str) -> None:
        """Delete the upload; no effect where it is gone."""

    def forget_events(self, before: float) -> None:
        """Delete the events received before then that are handled, or whose row is not there."""

    def versions_ran(self, since: float) -> list[tuple[str, str]]:
        """Pairs of model key and version that ran since then."""

    def overdue(self, now: float) -> float:
        """For how many seconds the longest due row has waited."""

    def usage(self, since: float) -> list[Row]:
        """Every row created since then, deleted ones too, oldest first."""
