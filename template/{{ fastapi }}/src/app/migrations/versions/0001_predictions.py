"""Predictions, webhook events and uploads."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "predictions",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("owner", sa.String(255), nullable=False),
        sa.Column("address", sa.String(64), nullable=False),
        sa.Column("model", sa.String(255), nullable=False),
        sa.Column("ref", sa.String(512), nullable=False),
        sa.Column("input", sa.JSON, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("mode", sa.String(16), nullable=False),
        sa.Column("deployment", sa.String(255)),
        sa.Column("idempotency_key", sa.String(255)),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("storage", sa.String(16), nullable=False),
        sa.Column("replicate_id", sa.String(64)),
        sa.Column("version_ran", sa.String(64)),
        sa.Column("stream_url", sa.Text),
        sa.Column("remote_output", sa.JSON),
        sa.Column("output", sa.JSON),
        sa.Column("files", sa.JSON, nullable=False),
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
    )
    op.create_index("predictions_due", "predictions", ["due_at"])
    op.create_index("predictions_owner", "predictions", ["owner", "created_at"])
    op.create_index("predictions_created", "predictions", ["created_at"])
    op.create_index("predictions_replicate", "predictions", ["replicate_id"], unique=True)
    op.create_table(
        "webhook_events",
        sa.Column("id", sa.String(255), primary_key=True),
        sa.Column("replicate_id", sa.String(64), nullable=False),
        sa.Column("row_id", sa.String(64)),
        sa.Column("body", sa.JSON, nullable=False),
        sa.Column("received_at", sa.Double, nullable=False),
        sa.Column("handled_at", sa.Double),
    )
    op.create_index("webhook_events_row", "webhook_events", ["row_id"])
    op.create_index("webhook_events_replicate", "webhook_events", ["replicate_id"])
    op.create_table(
        "uploads",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("owner", sa.String(255), nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("file", sa.JSON, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("uploads")
    op.drop_table("webhook_events")
    op.drop_table("predictions")
