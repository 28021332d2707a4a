"""Functions that refuse more than before; nothing stored changes, and a database without them is to be upgraded."""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Drop a form of `requeue` that would stand beside the new one; functions are installed after every upgrade."""
    op.execute(
        "DROP FUNCTION IF EXISTS ledger.requeue(text, text, text, uuid[], int[], interval[], text[], text[])"
    )
