"""An index of the runs that are parked for a tool, so that the sweep for ended children reads no others."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# No column of it changes with a beat, so beats stay heap-only updates.
RUN_PARKED = """
CREATE INDEX run_parked ON ledger.run_state (project_id, run_id)
WHERE state = 'waiting_tool' AND token IS NULL AND available_at IS NULL
"""


def upgrade() -> None:
    """Create the index."""
    op.execute(RUN_PARKED)
