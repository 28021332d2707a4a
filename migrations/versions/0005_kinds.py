"""Kinds: events that pause, resume and limit a kind of run, and the state that they fold into."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

KIND_EVENT = """
CREATE TABLE ledger.kind_event (
  project_id text NOT NULL REFERENCES ledger.project,
  kind varchar(200) NOT NULL,
  number int NOT NULL CHECK (number > 0),
  recorded_at timestamptz NOT NULL,
  actor varchar(200) NOT NULL,
  type text NOT NULL CHECK (type IN ('kind.paused', 'kind.resumed', 'kind.limited')),
  max_running int CHECK (max_running > 0),
  reason text,
  PRIMARY KEY (project_id, kind, number),
  CHECK (max_running IS NULL OR type = 'kind.limited')
)
"""

KIND_STATE = """
CREATE TABLE ledger.kind_state (
  project_id text NOT NULL,
  kind text NOT NULL,
  number int NOT NULL,
  paused boolean NOT NULL,
  max_running int,
  updated_at timestamptz NOT NULL,
  PRIMARY KEY (project_id, kind)
)
"""


def upgrade() -> None:
    """Create the tables; functions, triggers and grants are installed after every upgrade."""
    op.execute(KIND_EVENT)
    op.execute(KIND_STATE)
