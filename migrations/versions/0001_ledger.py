"""The ledger: projects, events in monthly partitions, payloads, idempotency keys and the inline projection."""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ROLES = """
DO $$
DECLARE
  role text;
BEGIN
  FOREACH role IN ARRAY ARRAY['runfold_worker', 'runfold_reader', 'runfold_projector'] LOOP
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
      EXECUTE format('CREATE ROLE %I NOLOGIN', role);
    END IF;
  END LOOP;
EXCEPTION
  WHEN duplicate_object OR unique_violation THEN
    NULL; -- another database of this server was migrated at the same moment; roles belong to the whole server
  WHEN insufficient_privilege THEN
    RAISE EXCEPTION 'this login may not make roles: have one that may run CREATE ROLE runfold_worker NOLOGIN; '
      'CREATE ROLE runfold_reader NOLOGIN; CREATE ROLE runfold_projector NOLOGIN; and upgrade again' USING ERRCODE = 'RF403';
END $$
"""

PROJECT = """
CREATE TABLE ledger.project (
  project_id text PRIMARY KEY CHECK (project_id ~ '^[a-z0-9][a-z0-9_-]{0,62}$'),
  created_at timestamptz NOT NULL DEFAULT clock_timestamp()
)
"""

# With the run that brought it in the key, two transactions that bring the same new kind do not wait for each other.
KIND = """
CREATE TABLE ledger.kind (
  project_id text NOT NULL,
  kind text NOT NULL,
  run_id uuid NOT NULL,
  PRIMARY KEY (project_id, kind, run_id)
)
"""

COMMAND = """
CREATE TABLE ledger.command (
  project_id text NOT NULL,
  key text NOT NULL,
  content_hash bytea NOT NULL,
  run_id uuid NOT NULL,
  version int NOT NULL,
  PRIMARY KEY (project_id, key)
)
"""

# CACHE 1: within a run, positions must rise with versions.
POSITION = "CREATE SEQUENCE ledger.event_position CACHE 1"

# Lengths are types, not constraints: a constraint's expression is parsed anew by every statement that inserts.
EVENT = """
CREATE TABLE ledger.event (
  project_id text NOT NULL,
  run_id uuid NOT NULL,
  version int NOT NULL,
  position bigint NOT NULL DEFAULT nextval('ledger.event_position'),
  txid xid8 NOT NULL DEFAULT pg_current_xact_id(),
  recorded_at timestamptz NOT NULL,
  type varchar(80) NOT NULL,
  schema_version int NOT NULL DEFAULT 1,
  actor varchar(200) NOT NULL,
  state text,
  name varchar(200),
  kind varchar(200),
  priority int,
  max_attempts int,
  deadline timestamptz,
  tags text[],
  attempt int,
  worker_id varchar(200),
  token int,
  lease_until timestamptz,
  available_at timestamptz,
  late_ms int,
  wait_until timestamptz,
  wait_outcome text,
  cost_usd numeric(18, 6),
  step_count int,
  error_code varchar(200),
  output_sha256 bytea,
  compensates int,
  key varchar(200),
  payload_hash bytea,
  hash bytea NOT NULL,
  PRIMARY KEY (project_id, run_id, version)
) PARTITION BY RANGE (run_id)
"""

FEED = "CREATE INDEX event_feed ON ledger.event (txid, position)"

PAYLOAD = """
CREATE TABLE ledger.payload (
  project_id text NOT NULL,
  run_id uuid NOT NULL,
  version int NOT NULL,
  salt bytea NOT NULL,
  body json NOT NULL,
  PRIMARY KEY (project_id, run_id, version)
)
"""

# Room on every page for the next version of its rows: a heartbeat is a HOT update, and touches no index.
RUN_STATE = """
CREATE TABLE ledger.run_state (
  project_id text NOT NULL,
  run_id uuid NOT NULL,
  version int NOT NULL,
  hash bytea NOT NULL,
  kind text NOT NULL,
  state text NOT NULL,
  priority int NOT NULL,
  attempt_count int NOT NULL,
  max_attempts int NOT NULL,
  worker_id text,
  token int,
  lease_until timestamptz,
  heartbeat_at timestamptz,
  available_at timestamptz,
  started_at timestamptz,
  completed_at timestamptz,
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL,
  deadline timestamptz,
  wait_until timestamptz,
  wait_outcome text,
  cancel_requested_at timestamptz,
  cost_usd numeric(18, 6) NOT NULL,
  step_count int NOT NULL,
  error_code text,
  outcome_version int,
  output_sha256 bytea,
  tags text[] NOT NULL,
  key text,
  PRIMARY KEY (project_id, run_id),
  CONSTRAINT lease_matches_state CHECK (CASE
    WHEN token IS NULL THEN worker_id IS NULL AND lease_until IS NULL AND state <> 'running'
    ELSE worker_id IS NOT NULL AND lease_until IS NOT NULL AND available_at IS NULL
      AND state IN ('running', 'waiting_tool', 'waiting_approval')
  END),
  CONSTRAINT totals_are_not_negative CHECK (cost_usd >= 0 AND step_count >= 0)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02)
"""

# None of these covers a column that a heartbeat changes, predicates included.
INDEXES = (
    "CREATE INDEX run_claimable ON ledger.run_state (project_id, kind, priority, run_id) WHERE available_at IS NOT NULL",
    "CREATE INDEX run_leased ON ledger.run_state (project_id, token) WHERE token IS NOT NULL",
    # What ends by the clock or by request without anybody's write: the reaper's other list. One index, because every
    # update that is not HOT sets all of them up.
    """
    CREATE INDEX run_due ON ledger.run_state
      (project_id, least(deadline, wait_until, CASE WHEN token IS NULL THEN cancel_requested_at END))
      WHERE completed_at IS NULL AND num_nonnulls(deadline, wait_until, cancel_requested_at) > 0
    """,
)


def upgrade() -> None:
    """Create the tables; functions, triggers and grants are installed after every upgrade."""
    for statement in (
        ROLES,
        PROJECT,
        KIND,
        COMMAND,
        POSITION,
        EVENT,
        FEED,
        PAYLOAD,
        RUN_STATE,
        *INDEXES,
    ):
        op.execute(statement)
