"""Schedules: runs that are submitted when a cron expression says so."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

SCHEDULE = """
CREATE TABLE ledger.schedule (
  project_id text NOT NULL REFERENCES ledger.project,
  name varchar(200) NOT NULL,
  kind varchar(200) NOT NULL,
  input text,
  cron varchar(200) NOT NULL,
  timezone varchar(200) NOT NULL,
  next_at timestamptz NOT NULL,
  last_due timestamptz,
  actor varchar(200) NOT NULL,
  updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (project_id, name)
)
"""


def upgrade() -> None:
    """Create the table; grants are installed after every upgrade."""
    op.execute(SCHEDULE)
