"""The store on SQLAlchemy: SQLite for one machine, PostgreSQL for many; the same statements."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from inference.prediction import TERMINAL, Row
from inference.store import Event, KeyReused, Limits, RunLately, changes

from .tables import events, predictions
from .uploads import SqlUploads, check_limits, lock_limits

p, e = predictions.c, events.c
# A leased row is locked, too: whoever gives it back meanwhile must see what came.
_at = sa.case((p.leased, p.due_at), else_=sa.bindparam("now", type_=sa.Double))
_WAKE = sa.text("""
    UPDATE predictions SET due_at = CASE WHEN leased THEN due_at ELSE :received_at END
    WHERE (id = :row_id OR replicate_id = :replicate_id)
    AND NOT EXISTS (SELECT 1 FROM webhook_events WHERE id = :id)
""")
_KEEP = sa.text("""
    INSERT INTO webhook_events (id, replicate_id, row_id, body, received_at)
    VALUES (:id, :replicate_id, :row_id, :body, :received_at) ON CONFLICT DO NOTHING
""")


class SqlStore(SqlUploads):
    """The port ``inference.store.Store`` on two tables and one for uploads."""

    def add(self, row: Row, limits: Limits, unless_since: float | None = None) -> Row:
        with self._engine.begin() as db:
            lock_limits(db)
            if row.idempotency_key is not None:
                same = (p.owner == row.owner, p.idempotency_key == row.idempotency_key)
                known = _one(db.execute(sa.select(predictions).where(*same)))
                if known is not None:
                    same_request = (known.model, known.input) == (row.model, row.input)
                    if known.deleted_at is not None or not same_request:
                        raise KeyReused
                    return known
            if unless_since is not None:
                lately = sa.select(p.id).where(p.model == row.model, p.created_at >= unless_since)
                if db.execute(lately.limit(1)).first() is not None:
                    raise RunLately
            check_limits(db, predictions, row, limits)
            db.execute(predictions.insert().values(**asdict(row)))
        return row

    def get(self, row_id: str) -> Row | None:
        with self._read() as db:
            query = sa.select(predictions).where(p.id == row_id, p.deleted_at.is_(None))
            return _one(db.execute(query))

    def page(self, owner: str, before: tuple[float, str] | None, limit: int) -> list[Row]:
        query = sa.select(predictions).where(p.owner == owner, p.deleted_at.is_(None))
        if before is not None:
            created_at, row_id = before
            query = query.where(
                (p.created_at < created_at) | ((p.created_at == created_at) & (p.id < row_id))
            )
        with self._read() as db:
            query = query.order_by(p.created_at.desc(), p.id.desc()).limit(limit)
            return _all(db.execute(query))

    def request_cancel(self, row_id: str, now: float) -> Row | None:
        with self._engine.begin() as db:
            return _cancel(db, row_id, now)

    def delete(self, row_id: str, now: float) -> Row | None:
        gone = sa.update(predictions).where(p.id == row_id).values(deleted_at=now, due_at=_at)
        with self._engine.begin() as db:
            row = _cancel(db, row_id, now)
            db.execute(gone, {"now": now})
        return row

    def receive(self, events: Sequence[Event]) -> int:
        # In one order, so that no two batches wait for each other's rows.
        ordered = sorted(events, key=lambda event: (str(event.replicate_id), event.id))
        values = [vars(event) | {"body": json.dumps(event.body)} for event in ordered]
        with self._engine.begin() as db:
            db.execute(_WAKE, values)
            return db.execute(_KEEP, values).rowcount

    def claim(self, now: float, lease: float) -> Row | None:
        due = sa.select(p.id).where(p.due_at <= now).order_by(p.due_at).limit(1)
        with self._read() as db:
            if db.execute(due).first() is None:
                return None
        with self._engine.begin() as db:
            row_id = db.execute(due.with_for_update(skip_locked=True)).scalar()
            if row_id is None:
                return None
            taken = (
                sa.update(predictions)
                .where(p.id == row_id)
                .values(due_at=now + lease, leased=True, attempts=p.attempts + 1)
                .returning(predictions)
            )
            return _one(db.execute(taken))

    def renew(self, row: Row, until: float) -> bool:
        return self._fenced(row, due_at=until)

    def mark_sent(self, row: Row, now: float) -> bool:
        with self._engine.begin() as db:
            query = (
                sa.update(predictions)
                .where(p.id == row.id, p.attempts == row.attempts, p.leased, p.status == "pending")
                .where(p.sent_at.is_(None))
                .values(sent_at=now)
            )
            return db.execute(query).rowcount == 1

    def events(self, row: Row) -> Sequence[Event]:
        its = e.row_id == row.id
        if row.replicate_id is not None:
            its |= e.replicate_id == row.replicate_id
        query = sa.select(e.id, e.replicate_id, e.row_id, e.body, e.received_at)
        with self._read() as db:
            found = db.execute(query.where(its, e.handled_at.is_(None)).order_by(e.received_at))
            return [Event(**item) for item in found.mappings()]

    def save(self, old: Row, new: Row, handled: Sequence[Event] = ()) -> bool:
        now = time.time()
        # sent_at has been written by mark_sent meanwhile, and is taken back if nothing was sent.
        always = {"due_at": new.due_at, "leased": False, "sent_at": new.sent_at}
        values = changes(old, new) | always
        with self._engine.begin() as db:
            mine = (p.id == old.id, p.attempts == old.attempts, p.leased.is_(True))
            if db.execute(sa.update(predictions).where(*mine).values(**values)).rowcount == 0:
                return False
            if handled:
                ids = [event.id for event in handled]
                # What they said is in the row now; only their ids are needed, to know them again.
                handled_now = sa.update(events).where(e.id.in_(ids))
                db.execute(handled_now.values(handled_at=now, body={}))
            waiting = (
                sa.exists()
                .where(e.handled_at.is_(None))
                .where((e.row_id == new.id) | (e.replicate_id == (new.replicate_id or "")))
            )
            meanwhile = sa.update(predictions).where(p.id == old.id).values(due_at=now)
            db.execute(meanwhile.where(waiting))
            if old.deleted_at is None:
                db.execute(meanwhile.where(p.deleted_at.is_not(None)))
            if not old.cancel_requested:
                asked = (p.cancel_requested.is_(True), p.status.not_in(TERMINAL))
                db.execute(meanwhile.where(*asked).values(ask_at=None))
        return True

    def note(self, old: Row, new: Row) -> bool:
        return self._fenced(old, **changes(old, new))

    def _fenced(self, row: Row, **values: Any) -> bool:
        with self._engine.begin() as db:
            mine = (p.id == row.id, p.attempts == row.attempts, p.leased.is_(True))
            return db.execute(sa.update(predictions).where(*mine).values(**values)).rowcount == 1

    def forget_events(self, before: float) -> None:
        its = (p.id == e.row_id) | (p.replicate_id == e.replicate_id)
        done = e.handled_at.is_not(None) | ~sa.exists().where(its)
        with self._engine.begin() as db:
            db.execute(sa.delete(events).where(e.received_at < before, done))

    def versions_ran(self, since: float) -> list[tuple[str, str]]:
        query = sa.select(p.model, p.version_ran).distinct()
        with self._read() as db:
            found = db.execute(query.where(p.created_at >= since, p.version_ran.is_not(None)))
            return [(model, version) for model, version in found]

    def overdue(self, now: float) -> float:
        with self._read() as db:
            oldest = db.execute(sa.select(sa.func.min(predictions.c.due_at))).scalar()
        return 0.0 if oldest is None else max(0.0, now - oldest)

    def usage(self, since: float) -> list[Row]:
        with self._read() as db:
            query = sa.select(predictions).where(p.created_at >= since).order_by(p.created_at)
            return _all(db.execute(query))


def _cancel(db: sa.Connection, row_id: str, now: float) -> Row | None:
    live = sa.update(predictions).where(p.id == row_id, p.status.not_in(TERMINAL))
    unsent = live.where(p.sent_at.is_(None), p.status == "pending")
    at_once = unsent.values(
        status="canceled",
        cancel_requested=True,
        completed_at=now,
        due_at=None,
        # A worker that was about to send it is fenced out.
        leased=False,
        attempts=p.attempts + 1,
    )
    asked = live.values(cancel_requested=True, ask_at=None, due_at=_at)
    row = _one(db.execute(at_once.returning(predictions)))
    return row or _one(db.execute(asked.returning(predictions), {"now": now}))


def _all(result: sa.CursorResult[Any]) -> list[Row]:
    return [Row(**item) for item in result.mappings()]


def _one(result: sa.CursorResult[Any]) -> Row | None:
    rows = _all(result)
    return rows[0] if rows else None
