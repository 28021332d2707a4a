"""Checks of the control history: its chain, and that the control tables are what it says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from runfold.ledger.postgres.connections import Pool
from runfold.ledger.proof.chain import Finding
from runfold.ledger.proof.control import ControlCheck, control_finding
from runfold.ledger.reading.snapshot import snapshot

UNCHECKED: Final = "the control history: that needs runfold_auditor and audit in all projects"
_PAGE: Final = 1_000
_MAY_READ: Final = """
SELECT has_table_privilege('ledger.control_event', 'SELECT')
  AND has_table_privilege('ledger.api_token', 'SELECT')
  AND (SELECT ledger.projects_with('audit')) IS NULL AS all
"""
_EVENTS: Final = """
SELECT number, recorded_at, project_id, credential, type, subject, facts, actor, reason, hash
FROM ledger.control_event ORDER BY project_id, number
"""
_HEADS: Final = "SELECT project_id, number, hash FROM ledger.control_head"
# The rows as the trigger wrote them down: in UTC, bytes in hex.
_SETTINGS: Final = """
SELECT set_config('TimeZone', 'UTC', true), set_config('bytea_output', 'hex', true)
"""


@dataclass(frozen=True, slots=True)
class ControlTable:
    """A table of orders, as the trigger `record_control` of it records them."""

    name: str
    sort: str
    keys: tuple[str, ...]
    moving: tuple[str, ...] = ()
    """The columns that change without anybody's order."""

    def rows(self) -> str:
        """Return the query of the rows: the subject of each, and its facts."""
        subject = " || ':' || ".join(f"(x.row ->> '{key}')" for key in self.keys)
        moving = ", ".join(f"'{name}'" for name in self.moving)
        return f"""
  SELECT '{self.sort}:' || {subject} AS subject, x.row::text AS facts
  FROM (SELECT to_jsonb(t) - ARRAY[{moving}]::text[] AS row FROM ledger.{self.name} AS t) AS x"""


CONTROL_TABLES: Final = (
    ControlTable("project", "project", ("project_id",), ("channel",)),
    ControlTable("access_grant", "access", ("project_id", "credential")),
    ControlTable("api_token", "token", ("token_id",)),
    ControlTable("user_account", "user", ("name",)),
    ControlTable("kind_event", "kind", ("project_id", "kind", "number")),
    ControlTable("role_event", "role", ("project_id", "number")),
    ControlTable(
        "schedule", "schedule", ("project_id", "name"), ("next_at", "last_due", "updated_at")
    ),
    ControlTable("webhook", "webhook", ("webhook_id",), ("checkpoint",)),
    ControlTable("archive_event", "archive", ("number",)),
    ControlTable("feed_generation", "generation", ("generation",)),
)
"""The tables that are folds of the control history; a test holds them to the triggers."""


_TABLES: Final = {table.sort: table.name for table in CONTROL_TABLES}
_DIFFERENCES: Final = f"""
WITH stored AS (
{"  UNION ALL".join(table.rows() for table in CONTROL_TABLES)}
), newest AS (
  SELECT DISTINCT ON (e.subject) e.subject, e.facts FROM ledger.control_event AS e
  WHERE split_part(e.subject, ':', 1) = ANY ($1) ORDER BY e.subject, e.number DESC
), differing AS (
  SELECT coalesce(stored.subject, newest.subject) AS subject, stored.facts AS have,
    newest.facts AS want
  FROM stored FULL JOIN newest ON newest.subject = stored.subject
  WHERE stored.facts IS DISTINCT FROM newest.facts
)
SELECT split_part(d.subject, ':', 1) AS sort, d.subject, d.have, d.want FROM differing AS d
ORDER BY array_position($1, split_part(d.subject, ':', 1)), d.subject
"""


async def check_control(pool: Pool) -> list[Finding] | None:
    """Return what is wrong with the control history; None for a session that may not read it."""
    async with snapshot(pool) as connection:
        if not await connection.fetchval(_MAY_READ):
            return None
        chain = ControlCheck(await connection.fetch(_HEADS))
        findings: list[Finding] = []
        async for event in connection.cursor(_EVENTS, prefetch=_PAGE):
            findings += chain.add(event)
        findings += chain.finish()
        await connection.execute(_SETTINGS)
        for row in await connection.fetch(_DIFFERENCES, list(_TABLES)):
            findings.append(
                _difference(_TABLES[row["sort"]], row["subject"], row["have"], row["want"])
            )
    return findings


def _difference(table: str, subject: str, have: str | None, want: str | None) -> Finding:
    if want is None:
        return control_finding(f"{table} has {subject}, which nobody ordered: {have}")
    if have is None:
        return control_finding(f"{table} lacks {subject}, which was ordered: {want}")
    return control_finding(f"{table} has {subject} as {have}, ordered was {want}")
