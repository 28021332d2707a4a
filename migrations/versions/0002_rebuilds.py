"""Rebuilds of projections: which there are and how far they are, so that a killed one goes on where it was."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# project_id: NULL for a projection over all projects; definition: what the shadow table was made and filled with.
REBUILD = """
CREATE TABLE ledger.rebuild (
  rebuild_id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  projection text NOT NULL,
  project_id text,
  until timestamptz,
  definition text NOT NULL,
  moment text,
  started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  finished_at timestamptz
)
"""

REBUILD_RANGE = """
CREATE TABLE ledger.rebuild_range (
  rebuild_id int NOT NULL,
  first uuid NOT NULL,
  last uuid NOT NULL,
  row_count bigint,
  event_count bigint,
  error text,
  done_at timestamptz,
  PRIMARY KEY (rebuild_id, first)
)
"""


def upgrade() -> None:
    """Create the tables; functions and grants are installed after every upgrade."""
    for statement in (REBUILD, REBUILD_RANGE):
        op.execute(statement)
