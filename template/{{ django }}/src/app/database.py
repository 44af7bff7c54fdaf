"""The store on Django's ORM: SQLite for one machine, PostgreSQL for many; the same statements."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

from django.db import connections
from django.db.models import Exists, F, Min, OuterRef, Q, QuerySet, Sum

from inference.prediction import TERMINAL, Row
from inference.store import Event, KeyReused, Limits, RunLately, changes

from . import models
from .uploads import DjangoUploads, check_limits, lock_limits

_COLUMNS = [field.name for field in fields(Row)]
_EVENT = [field.name for field in fields(Event)]
# What every webhook runs, as it is: for Django to build the two takes longer than all the rest.
_KEEP = """
    INSERT INTO webhook_events (id, replicate_id, row_id, body, received_at)
    VALUES (%(id)s, %(replicate_id)s, %(row_id)s, %(body)s, %(received_at)s) ON CONFLICT DO NOTHING
"""
# A leased row is locked, too: whoever gives it back meanwhile must see the event.
_WAKE = """
    UPDATE predictions SET due_at = CASE WHEN leased THEN due_at ELSE %(received_at)s END
    WHERE id = %(row_id)s OR replicate_id = %(replicate_id)s
"""


class DjangoStore(DjangoUploads):
    """The port ``inference.store.Store`` on two tables and one for uploads."""

    @property
    def _predictions(self) -> QuerySet[models.Prediction]:
        return models.Prediction.objects.using(self._alias)

    @property
    def _events(self) -> QuerySet[models.WebhookEvent]:
        return models.WebhookEvent.objects.using(self._alias)

    def add(self, row: Row, limits: Limits, unless_since: float | None = None) -> Row:
        with self._begin():
            lock_limits(self._alias)
            if row.idempotency_key is not None:
                same = {"owner": row.owner, "idempotency_key": row.idempotency_key}
                if known := _one(self._predictions.filter(**same)):
                    same_request = (known.model, known.input) == (row.model, row.input)
                    if known.deleted_at is not None or not same_request:
                        raise KeyReused
                    return known
            lately = self._predictions.filter(model=row.model, created_at__gte=unless_since or 0)
            if unless_since is not None and lately.exists():
                raise RunLately
            check_limits(self._predictions, row, limits, Sum("predict_seconds", default=0.0))
            self._predictions.create(**asdict(row))
        return row

    def get(self, row_id: str) -> Row | None:
        with self._read():
            return _one(self._predictions.filter(id=row_id, deleted_at=None))

    def page(self, owner: str, before: tuple[float, str] | None, limit: int) -> list[Row]:
        query = self._predictions.filter(owner=owner, deleted_at=None)
        if before is not None:
            created_at, row_id = before
            same = Q(created_at=created_at, id__lt=row_id)
            query = query.filter(Q(created_at__lt=created_at) | same)
        with self._read():
            return _all(query.order_by("-created_at", "-id")[:limit])

    def request_cancel(self, row_id: str, now: float) -> Row | None:
        with self._begin():
            return self._cancel(row_id, now)

    def delete(self, row_id: str, now: float) -> Row | None:
        with self._begin():
            row = self._cancel(row_id, now)
            gone = self._predictions.filter(id=row_id)
            gone.update(deleted_at=now)
            gone.filter(leased=False).update(due_at=now)
        return row

    def _cancel(self, row_id: str, now: float) -> Row | None:
        live = self._predictions.filter(id=row_id).exclude(status__in=TERMINAL)
        at_once = live.filter(sent_at=None, status="pending").update(
            status="canceled",
            cancel_requested=True,
            completed_at=now,
            due_at=None,
            # A worker that was about to send it is fenced out.
            leased=False,
            attempts=F("attempts") + 1,
        )
        if not at_once:
            if live.update(cancel_requested=True, ask_at=None) == 0:
                return None
            live.filter(leased=False).update(due_at=now)
        return _one(self._predictions.filter(id=row_id))

    def receive(self, events: Sequence[Event]) -> int:
        # In one order, so that no two batches wait for each other's rows.
        ordered = sorted(events, key=lambda event: (str(event.replicate_id), event.id))
        new = []
        with self._begin(), connections[self._alias].cursor() as db:
            for event in ordered:
                values = vars(event) | {"body": models.as_text(event.body)}
                db.execute(_KEEP, values)
                new += [values] * db.rowcount
            for values in new:
                db.execute(_WAKE, values)
        return len(new)

    def claim(self, now: float, lease: float) -> Row | None:
        due = self._predictions.filter(due_at__lte=now).order_by("due_at").values_list("id")
        with self._read():
            if due.first() is None:
                return None
        with self._begin():
            found = due.select_for_update(skip_locked=True).first()
            if found is None:
                return None
            taken = self._predictions.filter(id=found[0])
            taken.update(due_at=now + lease, leased=True, attempts=F("attempts") + 1)
            return _one(taken)

    def renew(self, row: Row, until: float) -> bool:
        return self._fenced(row, due_at=until)

    def mark_sent(self, row: Row, now: float) -> bool:
        mine = self._mine(row).filter(status="pending", sent_at=None)
        with self._begin():
            return mine.update(sent_at=now) == 1

    def events(self, row: Row) -> Sequence[Event]:
        query = self._about(row).order_by("received_at").values(*_EVENT)
        with self._read():
            return [Event(**item) for item in query]

    def save(self, old: Row, new: Row, handled: Sequence[Event] = ()) -> bool:
        now = time.time()
        # sent_at has been written by mark_sent meanwhile, and is taken back if nothing was sent.
        always = {"due_at": new.due_at, "leased": False, "sent_at": new.sent_at}
        with self._begin():
            if self._mine(old).update(**(changes(old, new) | always)) == 0:
                return False
            if handled:
                ids = [event.id for event in handled]
                # What they said is in the row now; only their ids are needed, to know them again.
                self._events.filter(id__in=ids).update(handled_at=now, body={})
            row = self._predictions.filter(id=old.id)
            if self._about(new).exists():
                row.update(due_at=now)
            if old.deleted_at is None:
                row.filter(deleted_at__isnull=False).update(due_at=now)
            if not old.cancel_requested:
                asked = row.filter(cancel_requested=True).exclude(status__in=TERMINAL)
                asked.update(due_at=now, ask_at=None)
        return True

    def note(self, old: Row, new: Row) -> bool:
        return self._fenced(old, **changes(old, new))

    def _mine(self, row: Row) -> QuerySet[models.Prediction]:
        return self._predictions.filter(id=row.id, attempts=row.attempts, leased=True)

    def _fenced(self, row: Row, **values: Any) -> bool:
        with self._begin():
            return self._mine(row).update(**values) == 1

    def _about(self, row: Row) -> QuerySet[models.WebhookEvent]:
        """Events about the row that no worker has handled."""
        its = Q(row_id=row.id) | Q(replicate_id=row.replicate_id or "")
        return self._events.filter(its, handled_at=None)

    def forget_events(self, before: float) -> None:
        its = Q(id=OuterRef("row_id")) | Q(replicate_id=OuterRef("replicate_id"))
        done = Q(handled_at__isnull=False) | ~Exists(self._predictions.filter(its))
        with self._begin():
            self._events.filter(done, received_at__lt=before).delete()

    def versions_ran(self, since: float) -> list[tuple[str, str]]:
        ran = self._predictions.filter(created_at__gte=since, version_ran__isnull=False)
        pairs = ran.order_by().values_list("model", "version_ran").distinct()
        with self._read():
            return [(model, str(version)) for model, version in pairs]

    def overdue(self, now: float) -> float:
        with self._read():
            oldest = self._predictions.aggregate(oldest=Min("due_at"))["oldest"]
        return 0.0 if oldest is None else max(0.0, now - oldest)

    def usage(self, since: float) -> list[Row]:
        with self._read():
            return _all(self._predictions.filter(created_at__gte=since).order_by("created_at"))


def _all(query: QuerySet[models.Prediction]) -> list[Row]:
    return [Row(**item) for item in query.values(*_COLUMNS)]


def _one(query: QuerySet[models.Prediction]) -> Row | None:
    item = query.values(*_COLUMNS).first()
    return None if item is None else Row(**item)
