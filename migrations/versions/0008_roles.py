"""Roles: who may decide what, granted and revoked by records to which rows are only ever added."""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

ROLE_EVENT = """
CREATE TABLE ledger.role_event (
  number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  project_id text NOT NULL REFERENCES ledger.project,
  recorded_at timestamptz NOT NULL,
  type text NOT NULL CHECK (type IN ('role.granted', 'role.revoked')),
  role varchar(200) NOT NULL,
  member varchar(200) NOT NULL,
  actor varchar(200) NOT NULL,
  reason text
)
"""
BY_MEMBER = "CREATE INDEX role_event_member ON ledger.role_event (project_id, role, member, number)"


def upgrade() -> None:
    """Create the table; functions, triggers and grants are installed after every upgrade."""
    op.execute(ROLE_EVENT)
    op.execute(BY_MEMBER)
