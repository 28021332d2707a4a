"""The archive: what was done with whole months of events, and what must not be done while somebody holds them."""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# Every record of a month restates all facts of its file, so that the newest says how it stands.
ARCHIVE_EVENT = """
CREATE TABLE ledger.archive_event (
  number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  recorded_at timestamptz NOT NULL,
  type text NOT NULL
    CHECK (type IN ('archive.exported', 'archive.detached', 'archive.attached', 'hold.placed', 'hold.released')),
  actor varchar(200) NOT NULL,
  reason text,
  month varchar(7) NOT NULL,
  project_id text,
  run_id uuid,
  first uuid,
  beyond uuid,
  runs bigint,
  events bigint,
  payloads bigint,
  generation int,
  last_position bigint,
  last_txid xid8,
  size_bytes bigint,
  sha256 bytea,
  file text,
  CHECK (type LIKE 'hold.%' OR num_nulls(
    first, beyond, runs, events, payloads, generation, last_position, size_bytes, sha256, file) = 0)
)
"""


def upgrade() -> None:
    """Create the table; functions, triggers and grants are installed after every upgrade."""
    op.execute(ARCHIVE_EVENT)
