"""The history's function takes one parameter more: its old form would be another function beside it."""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Drop the old form; functions, triggers and grants are installed after every upgrade."""
    op.execute("DROP FUNCTION IF EXISTS ledger.history(text, uuid, int)")
