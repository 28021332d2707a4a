"""The tables of the ledger, as `0001_ledger.sql` has them."""

from __future__ import annotations

from pathlib import Path

from alembic import op

from runfold.ledger.postgres.migrating import execute_script

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None
oldest_code = "0001"


def upgrade() -> None:
    """Create the tables; functions, triggers and grants are installed after every upgrade."""
    execute_script(op.get_bind(), Path(__file__).with_suffix(".sql").read_text(encoding="utf-8"))
