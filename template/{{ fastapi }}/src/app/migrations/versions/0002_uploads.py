"""Uploads count against the limits, and are known before their file is stored."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    # SQLite changes a column by making the table again.
    with op.batch_alter_table("uploads") as table:
        table.add_column(sa.Column("address", sa.String(64), nullable=False, server_default=""))
        table.alter_column("file", existing_type=sa.JSON, nullable=True)
    op.create_index("uploads_created", "uploads", ["created_at"])


def downgrade() -> None:
    op.drop_index("uploads_created", "uploads")
    op.execute("DELETE FROM uploads WHERE file IS NULL")
    with op.batch_alter_table("uploads") as table:
        table.drop_column("address")
        table.alter_column("file", existing_type=sa.JSON, nullable=False)
