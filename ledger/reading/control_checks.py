"""Checks of the control history: its chain, and that the control tables are what it says.

Page by page, each in a snapshot of its own. What belongs together is written by one transaction (a
row and its event, an event and its list's head), so one snapshot holds it or does not: what is
written between two pages never looks like damage.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from runfold.ledger.postgres.connections import Pool
from runfold.ledger.proof.chain import Finding
from runfold.ledger.proof.control import ControlCheck, control_finding, end_finding
from runfold.ledger.reading.control_tables import CONTROL_TABLES, ControlTable
from runfold.ledger.reading.snapshot import snapshot

UNCHECKED: Final = "the control history: that needs runfold_auditor and audit in all projects"
_PAGE: Final = 2_000
"""Rows of a page: of the events, and of each table."""
_MAY_READ: Final = """
SELECT has_table_privilege('ledger.control_event', 'SELECT')
  AND has_table_privilege('ledger.api_token', 'SELECT')
  AND (SELECT ledger.projects_with('audit')) IS NULL AS all
"""
# The rows as the trigger wrote them down: in UTC, bytes in hex.
_SETTINGS: Final = """
SELECT set_config('TimeZone', 'UTC', true), set_config('bytea_output', 'hex', true)
"""
_TABLES: Final = {table.noun: table for table in CONTROL_TABLES}
_PATTERNS: Final = " ".join(
    f"WHEN '{table.noun}' THEN '{table.pattern}'" for table in CONTROL_TABLES
)
_ROW: Final = "\n    ".join(f"WHEN '{table.noun}' THEN {table.row()}" for table in CONTROL_TABLES)
# The greatest number is one lookup whatever the statistics say; for EXISTS the planner may read the
# table from its beginning, for each event anew.
EVENTS: Final = f"""
WITH page AS MATERIALIZED (
  SELECT event.*, named.noun, regexp_match(event.subject, CASE named.noun {_PATTERNS} END) AS keys
  FROM ledger.control_event AS event
  CROSS JOIN LATERAL split_part(event.subject, ':', 1) AS named (noun)
  WHERE (event.project_id, event.number) > ($2, $3) ORDER BY event.project_id, event.number LIMIT $1
)
SELECT page.*, head.number AS head_number, head.hash AS head_hash,
  page.number >= (SELECT max(event.number) FROM ledger.control_event AS event
    WHERE event.project_id = page.project_id) AS is_last,
  page.number >= (SELECT max(event.number) FROM ledger.control_event AS event
    WHERE event.subject = page.subject) AS is_newest,
  (SELECT event.project_id = '*' AND event.type = 'list.begun' FROM ledger.control_event AS event
    WHERE event.subject = 'list:' || page.project_id ORDER BY event.number LIMIT 1) AS is_begun,
  (SELECT max(event.number) FROM ledger.control_event AS event
    WHERE event.project_id = substr(page.subject, length('list:') + 1)) IS NOT NULL AS has_list,
  CASE page.noun
    {_ROW} END AS have
FROM page LEFT JOIN ledger.control_head AS head ON head.project_id = page.project_id
ORDER BY page.project_id, page.number
"""
_PAGES: Final = " UNION ALL ".join(
    f"({table.rows(at)})" for at, table in enumerate(CONTROL_TABLES, 2)
)
# Events are looked up for all tables together: one more subplan for each takes long to plan.
ROWS: Final = f"""
SELECT page.place, page.keys, page.subject, CASE WHEN (
  SELECT max(event.number) FROM ledger.control_event AS event WHERE event.subject = page.subject
) IS NULL THEN page.row::text END AS unordered
FROM ({_PAGES}) AS page
"""
HEADS: Final = """
SELECT page.*, (SELECT max(event.number) FROM ledger.control_event AS event
  WHERE event.project_id = page.project_id) IS NULL AS is_alone
FROM (SELECT head.* FROM ledger.control_head AS head WHERE head.project_id >= $2
  ORDER BY head.project_id LIMIT 1 + $1) AS page
"""


async def check_control(pool: Pool) -> list[Finding] | None:
    """Return what is wrong with the control history; None for a session that may not read it."""
    check = _Check()
    while not check.is_done:
        async with snapshot(pool) as connection:
            if not await connection.fetchval(_MAY_READ):
                return None
            await connection.execute(_SETTINGS)
            await check.page(connection)
    return check.findings()


class _Check:
    """One check: how far it has read, and what it has found so far."""

    def __init__(self) -> None:
        self._chain = ControlCheck()
        self._after: tuple[str, int] | None = ("", 0)
        self._heads_from: str | None = ""
        self._rows_from: list[list[str] | None] = [table.start for table in CONTROL_TABLES]
        self._findings: list[Finding] = []

    @property
    def is_done(self) -> bool:
        """Whether everything has been read."""
        return self._after is None and self._heads_from is None and not any(self._rows_from)

    def findings(self) -> list[Finding]:
        """Return the findings; a row may end one page and begin the next, and is reported once."""
        return list(dict.fromkeys([*self._findings, *self._chain.finish()]))

    async def page(self, connection: Any) -> None:
        """Read the next page of the events, of the heads and of each table."""
        if self._after is not None:
            events = await connection.fetch(EVENTS, _PAGE, *self._after)
            for event in events:
                self._findings += self._chain.add(event)
                self._findings += _difference(event)
            is_full = len(events) == _PAGE
            self._after = (events[-1]["project_id"], events[-1]["number"]) if is_full else None
        if self._heads_from is not None:
            heads = await connection.fetch(HEADS, _PAGE, self._heads_from)
            self._findings += (
                end_finding(h["project_id"], None, h) for h in heads if h["is_alone"]
            )
            self._heads_from = heads[-1]["project_id"] if len(heads) > _PAGE else None
        if any(self._rows_from):
            rows = await connection.fetch(ROWS, _PAGE, *self._rows_from)
            for place, table in enumerate(CONTROL_TABLES):
                page = [row for row in rows if row["place"] == place + 2]
                self._findings += (
                    _unordered(table, row["subject"], row["unordered"])
                    for row in page
                    if row["unordered"] is not None
                )
                self._rows_from[place] = page[-1]["keys"] if len(page) > _PAGE else None


def _difference(event: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield a finding if the row is not as the newest event about it left it.

    Nor may an older event differ, where rows never change: another row would have its number.
    """
    table, have, want = _TABLES.get(event["noun"]), event["have"], event["facts"]
    if table is None or have == want or not (event["is_newest"] or table.is_appended):
        return
    subject = event["subject"]
    if want is None:
        yield _unordered(table, subject, have)
    elif have is None:
        yield control_finding(f"{table.name} lacks {subject}, which was ordered: {want}")
    else:
        yield control_finding(f"{table.name} has {subject} as {have}, ordered was {want}")


def _unordered(table: ControlTable, subject: str, have: str) -> Finding:
    return control_finding(f"{table.name} has {subject}, which nobody ordered: {have}")
