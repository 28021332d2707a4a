"""Functions that take other parameters than before: their old forms would be others beside them."""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Drop the old forms; functions, triggers and grants are installed after every upgrade."""
    op.execute("DROP FUNCTION IF EXISTS ledger.history(text, uuid, int)")
    op.execute(
        "DROP FUNCTION IF EXISTS ledger.requeue(text, text, text, uuid[], int[], interval[], text[], text[])"
    )
