"""Asynchronous projections: their checkpoints, the events they were told to skip, and the generations of the feed."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

ROLE = """
DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'runfold_projector') THEN
    CREATE ROLE runfold_projector NOLOGIN;
  END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
  NULL; -- another database of this server was migrated at the same moment; roles belong to the whole server
END $$
"""

SCHEMA = "CREATE SCHEMA projection"

# Transaction ids mean something in one cluster only. A restored dump begins a new generation: its start is the moment
# (snapshot@position) from which on ids are of this cluster again, end_position the last position before the next one.
FEED_GENERATION = """
CREATE TABLE ledger.feed_generation (
  generation int PRIMARY KEY,
  start text NOT NULL,
  end_position bigint,
  system_identifier bigint NOT NULL,
  started_at timestamptz NOT NULL DEFAULT clock_timestamp()
)
"""

FIRST_GENERATION = """
INSERT INTO ledger.feed_generation (generation, start, system_identifier)
SELECT 1, '1:1:@0', system_identifier FROM pg_control_system()
"""

PROJECTION = """
CREATE TABLE ledger.projection (
  name text PRIMARY KEY,
  version int NOT NULL,
  digest text NOT NULL,
  generation int NOT NULL,
  snapshot text NOT NULL,
  target text,
  position bigint NOT NULL,
  events bigint NOT NULL DEFAULT 0,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  moved_at timestamptz,
  paused_at timestamptz,
  failed_at timestamptz,
  error text,
  error_project_id text,
  error_run_id uuid,
  error_version int,
  error_position bigint
) WITH (fillfactor = 50)
"""

PROJECTION_SKIP = """
CREATE TABLE ledger.projection_skip (
  name text NOT NULL,
  version int NOT NULL,
  position bigint NOT NULL,
  project_id text NOT NULL,
  run_id uuid NOT NULL,
  event_version int NOT NULL,
  error text NOT NULL,
  actor text NOT NULL,
  reason text NOT NULL,
  skipped_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (name, version, position)
)
"""


def upgrade() -> None:
    """Create the tables; functions and grants are installed after every upgrade."""
    for statement in (ROLE, SCHEMA, FEED_GENERATION, FIRST_GENERATION, PROJECTION, PROJECTION_SKIP):
        op.execute(statement)
