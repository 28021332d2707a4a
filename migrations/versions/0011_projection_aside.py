"""Runs that a projection cannot fold are set aside, and the projection goes on with the rest."""

from __future__ import annotations

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

# One row for each run that is left out of a table of schema `projection`: its events from first_position to
# last_position are not in the table. error: NULL for a run that was set aside with its project, untried.
ASIDE = """
CREATE TABLE ledger.projection_aside (
  relation text NOT NULL,
  name text NOT NULL,
  project_id text NOT NULL,
  run_id uuid NOT NULL,
  first_position bigint NOT NULL,
  last_position bigint NOT NULL,
  events bigint NOT NULL DEFAULT 0,
  event_version int,
  error text,
  set_aside_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  retry_at timestamptz,
  PRIMARY KEY (relation, project_id, run_id)
)
"""
TRIED = """
CREATE INDEX projection_aside_error ON ledger.projection_aside (relation, project_id) WHERE error IS NOT NULL
"""
RETRIED = """
CREATE INDEX projection_aside_retry ON ledger.projection_aside (relation, retry_at) WHERE retry_at IS NOT NULL
"""


def upgrade() -> None:
    """Create the table; functions and grants are installed after every upgrade."""
    for statement in (ASIDE, TRIED, RETRIED):
        op.execute(statement)
