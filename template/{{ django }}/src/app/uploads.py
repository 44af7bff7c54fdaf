"""The part of the store that is about uploads, and the limits that all starts count against."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from typing import Any

from django.db import close_old_connections, connections, transaction
from django.db.models import Aggregate, Count, Min, QuerySet, Sum, Value

from inference import store
from inference.prediction import Row, StoredFile
from inference.store import Limits, Upload, midnight

from . import models

_LIMITS_LOCK = 7_264_911


class DjangoUploads:
    """Uploads, as ``inference.store.Store`` has them."""

    def __init__(self, alias: str = "default") -> None:
        self._alias = alias
        # Threads that write to SQLite queue up here: its own lock makes them sleep and try again.
        sqlite = connections[alias].vendor == "sqlite"
        self._turn = threading.Lock() if sqlite else nullcontext()

    @contextmanager
    def _read(self) -> Iterator[None]:
        try:
            yield
        finally:
            # Workers wait in threads that no request ends: a connection goes back after each use.
            if not connections[self._alias].in_atomic_block:
                close_old_connections()

    @contextmanager
    def _begin(self) -> Iterator[None]:
        # A caller's own transaction has SQLite's lock already: to wait here would be a deadlock.
        turn = nullcontext() if connections[self._alias].in_atomic_block else self._turn
        with self._read(), turn, transaction.atomic(using=self._alias):
            yield

    @property
    def _uploads(self) -> QuerySet[models.Upload]:
        return models.Upload.objects.using(self._alias)

    def add_upload(self, upload: Upload, limits: Limits) -> None:
        with self._begin():
            lock_limits(self._alias)
            check_limits(self._uploads, upload, limits, Sum(Value(0.0), default=0.0))
            self._uploads.create(**asdict(upload))

    def keep_upload(self, upload: Upload) -> None:
        file = None if upload.file is None else asdict(upload.file)
        with self._begin():
            self._uploads.filter(id=upload.id).update(file=file)

    def upload(self, upload_id: str) -> Upload | None:
        with self._read():
            item = self._uploads.filter(id=upload_id).first()
        return None if item is None else _upload(item)

    def old_uploads(self, before: float) -> list[Upload]:
        old = self._uploads.filter(created_at__lt=before).order_by("created_at")
        with self._read():
            return [_upload(item) for item in old[:100]]

    def forget_upload(self, upload_id: str) -> None:
        with self._begin():
            self._uploads.filter(id=upload_id).delete()


def _upload(item: models.Upload) -> Upload:
    file = None if item.file is None else StoredFile(**item.file)
    return Upload(item.id, item.owner, item.address, item.created_at, file)


def lock_limits(alias: str) -> None:
    """Let nobody else count and insert meanwhile; on SQLite every writer is alone anyway."""
    if connections[alias].vendor == "postgresql":
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LIMITS_LOCK])


def check_limits(
    table: QuerySet[Any], new: Row | Upload, limits: Limits, seconds: Aggregate
) -> None:
    now = new.created_at

    def window(**whose: str) -> tuple[int, float | None]:
        found = table.filter(created_at__gt=now - 60, **whose).aggregate(
            made=Count("*"), first=Min("created_at")
        )
        return found["made"], found["first"]

    spent = table.filter(created_at__gte=midnight(now)).aggregate(made=Count("*"), seconds=seconds)
    today = (spent["made"], spent["seconds"])
    store.check_limits(limits, now, window(owner=new.owner), window(address=new.address), today)
