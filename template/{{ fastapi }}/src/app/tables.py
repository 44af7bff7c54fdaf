"""The tables, and the engine that opens them: SQLite for one machine, PostgreSQL for many."""

from __future__ import annotations

import os
from typing import Any

import sqlalchemy as sa

from inference.settings import NO_DATABASE, SettingsError

metadata = sa.MetaData()
Json = sa.JSON(none_as_null=True)

predictions = sa.Table(
    "predictions",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("owner", sa.String(255), nullable=False),
    sa.Column("address", sa.String(64), nullable=False),
    sa.Column("model", sa.String(255), nullable=False),
    sa.Column("ref", sa.String(512), nullable=False),
    sa.Column("input", Json, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("mode", sa.String(16), nullable=False),
    sa.Column("deployment", sa.String(255)),
    sa.Column("idempotency_key", sa.String(255)),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("storage", sa.String(16), nullable=False),
    sa.Column("replicate_id", sa.String(64)),
    sa.Column("version_ran", sa.String(64)),
    sa.Column("stream_url", sa.Text),
    sa.Column("remote_output", Json),
    sa.Column("output", Json),
    sa.Column("files", Json, nullable=False),
    sa.Column("error", sa.Text),
    sa.Column("predict_seconds", sa.Double),
    sa.Column("completed_at", sa.Double),
    sa.Column("sent_at", sa.Double),
    sa.Column("ask_at", sa.Double),
    sa.Column("cancel_requested", sa.Boolean, nullable=False),
    sa.Column("deleted_at", sa.Double),
    sa.Column("erased", sa.Boolean, nullable=False),
    sa.Column("due_at", sa.Double),
    sa.Column("leased", sa.Boolean, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("failures", sa.Integer, nullable=False),
    sa.UniqueConstraint("owner", "idempotency_key", name="predictions_key"),
    sa.Index("predictions_due", "due_at"),
    sa.Index("predictions_owner", "owner", "created_at"),
    sa.Index("predictions_created", "created_at"),
    sa.Index("predictions_replicate", "replicate_id", unique=True),
)

events = sa.Table(
    "webhook_events",
    metadata,
    sa.Column("id", sa.String(255), primary_key=True),
    sa.Column("replicate_id", sa.String(64), nullable=False),
    sa.Column("row_id", sa.String(64)),
    sa.Column("body", Json, nullable=False),
    sa.Column("received_at", sa.Double, nullable=False),
    sa.Column("handled_at", sa.Double),
    sa.Index("webhook_events_row", "row_id"),
    sa.Index("webhook_events_replicate", "replicate_id"),
)

uploads = sa.Table(
    "uploads",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("owner", sa.String(255), nullable=False),
    sa.Column("address", sa.String(64), nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("file", Json),
    sa.Index("uploads_created", "created_at"),
)

# Seconds (the last: milliseconds) until a server that does not answer any more counts as gone;
# without them a worker that was cut off waits for a quarter of an hour.
_CUT_OFF = {"connect_timeout": 10, "keepalives_idle": 20, "keepalives_interval": 5}
_CUT_OFF |= {"keepalives_count": 3, "tcp_user_timeout": 30_000}


def open_engine(url: str) -> sa.Engine:
    """An engine for the URL; on SQLite one connection, WAL, and writers that queue up.

    Raises:
        SettingsError: the URL names neither of the two, or a folder that cannot be made.
    """
    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):  # which may hold the password
        raise SettingsError(NO_DATABASE) from None
    if parsed.drivername in ("postgres", "postgresql", "postgresql+psycopg"):
        engine = sa.create_engine(
            parsed.set(drivername="postgresql+psycopg"), pool_pre_ping=True, connect_args=_CUT_OFF
        )

        @sa.event.listens_for(engine, "connect")
        def bound(connection: Any, _: Any) -> None:
            # A host that stands still in the middle of a transaction would keep its rows locked.
            connection.execute("SET idle_in_transaction_session_timeout = '30s'")
            connection.commit()

        return engine
    if parsed.drivername != "sqlite":
        raise SettingsError(NO_DATABASE)
    try:
        os.makedirs(os.path.dirname(os.path.abspath(parsed.database or "")), exist_ok=True)
    except OSError as error:
        raise SettingsError(f"DATABASE_URL: {error}") from None
    engine = sa.create_engine(
        parsed,
        poolclass=sa.QueuePool,
        pool_size=1,
        max_overflow=0,
        connect_args={"check_same_thread": False, "timeout": 30},
    )

    @sa.event.listens_for(engine, "connect")
    def connect(connection: Any, _: Any) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")
        # NORMAL survives a killed process; a power cut may lose the last commits (FULL would not).
        connection.execute("PRAGMA synchronous=NORMAL")

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        reading = connection.get_execution_options().get("reading")
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    return engine
