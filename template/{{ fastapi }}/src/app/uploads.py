"""The part of the store that is about uploads, and the limits that all starts count against."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from inference import store
from inference.prediction import Row, StoredFile
from inference.store import Limits, Upload, midnight

from .tables import uploads

_LIMITS_LOCK = 7_264_911


class SqlUploads:
    """Uploads, as ``inference.store.Store`` has them."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    @contextmanager
    def _read(self) -> Iterator[sa.Connection]:
        with self._engine.connect() as connection:
            yield connection.execution_options(reading=True)

    def add_upload(self, upload: Upload, limits: Limits) -> None:
        with self._engine.begin() as db:
            lock_limits(db)
            check_limits(db, uploads, upload, limits)
            db.execute(uploads.insert().values(**asdict(upload)))

    def keep_upload(self, upload: Upload) -> None:
        file = None if upload.file is None else asdict(upload.file)
        with self._engine.begin() as db:
            db.execute(sa.update(uploads).where(uploads.c.id == upload.id).values(file=file))

    def upload(self, upload_id: str) -> Upload | None:
        with self._read() as db:
            found = _uploads(db.execute(sa.select(uploads).where(uploads.c.id == upload_id)))
        return found[0] if found else None

    def old_uploads(self, before: float) -> list[Upload]:
        u = uploads.c
        query = sa.select(uploads).where(u.created_at < before).order_by(u.created_at).limit(100)
        with self._read() as db:
            return _uploads(db.execute(query))

    def forget_upload(self, upload_id: str) -> None:
        with self._engine.begin() as db:
            db.execute(sa.delete(uploads).where(uploads.c.id == upload_id))


def _uploads(result: sa.CursorResult[Any]) -> list[Upload]:
    found = [dict(item) for item in result.mappings()]
    return [
        Upload(**item | {"file": item["file"] and StoredFile(**item["file"])}) for item in found
    ]


def lock_limits(db: sa.Connection) -> None:
    """Let nobody else count and insert meanwhile; on SQLite every writer is alone anyway."""
    if db.dialect.name == "postgresql":
        db.execute(sa.select(sa.func.pg_advisory_xact_lock(_LIMITS_LOCK)))


def check_limits(db: sa.Connection, table: sa.Table, new: Row | Upload, limits: Limits) -> None:
    c = table.c
    now = new.created_at
    window = sa.select(sa.func.count(), sa.func.min(c.created_at)).where(c.created_at > now - 60)
    spent = sa.literal(0.0) if table is uploads else sa.func.sum(c.predict_seconds)
    day = sa.select(sa.func.count(), sa.func.coalesce(spent, 0.0))
    caller = db.execute(window.where(c.owner == new.owner)).one()
    address = db.execute(window.where(c.address == new.address)).one()
    today = db.execute(day.where(c.created_at >= midnight(now))).one()
    store.check_limits(limits, now, caller, address, today)
