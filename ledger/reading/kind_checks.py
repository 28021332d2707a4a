"""Checks of kinds: their settings against the fold of their events, and that no run is hidden.

A run is hidden from claims and reapers if its kind is not known, or if it lies before a low-water
mark of its kind (`ledger/sql/marks/move_low_water.sql`).

It reads page by page, each in its own snapshot. An event and the settings that it changes are
written by one transaction, so a change between two pages never looks like damage.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from runfold.ledger.postgres.connections import Pool
from runfold.ledger.proof.chain import Finding
from runfold.ledger.reading.snapshot import snapshot

_PAGE: Final = 2_000
"""Rows of a page: of the events, of the settings, and of the marks."""
# The greatest number is one lookup whatever the statistics say.
EVENTS: Final = """
SELECT page.*, page.number >= (SELECT max(event.number) FROM ledger.kind_event AS event
    WHERE event.project_id = $2 AND event.kind = page.kind) AS is_last,
  settings.number AS set_number, settings.paused AS set_paused,
  settings.max_running AS set_max_running, settings.updated_at AS set_at
FROM (SELECT event.kind, event.number, event.recorded_at, event.type, event.max_running
  FROM ledger.kind_event AS event
  WHERE event.project_id = $2 AND (event.kind, event.number) >= ($3, $4)
  ORDER BY event.kind, event.number LIMIT 1 + $1) AS page
LEFT JOIN ledger.kind_state AS settings ON settings.project_id = $2 AND settings.kind = page.kind
ORDER BY page.kind, page.number
"""
STATES: Final = """
SELECT page.kind, (SELECT max(event.number) FROM ledger.kind_event AS event
  WHERE event.project_id = $2 AND event.kind = page.kind) IS NULL AS is_alone
FROM (SELECT settings.kind FROM ledger.kind_state AS settings
  WHERE settings.project_id = $2 AND settings.kind >= $3
  ORDER BY settings.kind LIMIT 1 + $1) AS page
ORDER BY page.kind
"""
_MARKED: Final = """
SELECT DISTINCT mark.kind FROM ledger.low_water AS mark
WHERE mark.project_id = $2 AND mark.kind >= $3
ORDER BY mark.kind LIMIT 1 + $1
"""
_HIDDEN: Final = """
WITH mark AS (
  SELECT DISTINCT ON (mark.kind) mark.* FROM ledger.low_water AS mark
  WHERE mark.project_id = $1 AND mark.kind BETWEEN $2 AND $3 ORDER BY mark.kind, mark.number DESC
), hidden AS (
  SELECT mark.kind, mark.open, run.run_id, 'sweeps' AS walk FROM mark
  JOIN ledger.run_state AS run ON run.project_id = $1 AND run.kind = mark.kind
    AND run.token IS NOT NULL AND run.moved_position <= mark.leases_after
    AND run.run_id <> ALL (mark.older_leases)
  UNION
  SELECT mark.kind, mark.open, run.run_id, 'sweeps' FROM mark
  JOIN ledger.run_state AS run ON run.project_id = $1 AND run.kind = mark.kind
    AND run.completed_at IS NULL AND num_nonnulls(run.deadline, run.wait_until) > 0
    AND least(run.deadline, run.wait_until) < mark.ends_from
  UNION
  SELECT mark.kind, mark.open, run.run_id, 'sweeps' FROM mark
  JOIN ledger.run_state AS run ON run.project_id = $1 AND run.kind = mark.kind
    AND run.token IS NULL AND run.completed_at IS NULL
    AND (run.cancel_requested_at IS NOT NULL AND run.moved_position <= mark.cancels_after
      OR run.cancel_requested_at IS NULL AND run.state = 'waiting_tool'
        AND run.available_at IS NULL AND run.moved_position <= mark.parked_after
        AND run.run_id <> ALL (mark.older_parked))
  UNION ALL
  SELECT mark.kind, mark.open, run.run_id, 'claims' FROM mark
  CROSS JOIN unnest(mark.priorities, mark.runs) AS place (priority, run)
  JOIN ledger.run_state AS run ON run.project_id = $1 AND run.kind = mark.kind
    AND run.priority = place.priority AND run.available_at <= run.created_at
    AND run.run_id < place.run
  UNION ALL
  SELECT mark.kind, mark.open, run.run_id, 'claims' FROM mark
  CROSS JOIN unnest(mark.back_priorities, mark.dues) AS place (priority, due)
  JOIN ledger.run_state AS run ON run.project_id = $1 AND run.kind = mark.kind
    AND run.priority = place.priority AND run.available_at > run.created_at
    AND run.available_at < place.due
)
SELECT kind, walk, min(run_id::text)::uuid AS run_id, count(*) AS runs
FROM hidden WHERE NOT EXISTS (SELECT FROM ledger.event AS event
  WHERE event.project_id = $1 AND event.run_id = hidden.run_id AND event.txid = ANY (hidden.open))
GROUP BY kind, walk ORDER BY kind, walk
"""


_UNLISTED: Final = """
SELECT had.kind FROM unnest($2::text[]) AS had (kind) WHERE NOT EXISTS (
  SELECT FROM ledger.kind AS known WHERE known.project_id = $1 AND known.kind = had.kind OFFSET 0)
"""
_LOWEST: Final = -(2**31)


async def unlisted_kinds(connection: Any, project_id: str, kinds: Iterable[str]) -> set[str]:
    """Return those of these kinds that the project does not list."""
    rows = await connection.fetch(_UNLISTED, project_id, list(kinds))
    return {row["kind"] for row in rows}


def unlisted(kind: str) -> Finding:
    """Return the finding that a kind has runs, and is not listed."""
    return Finding(None, None, "kind", f"{kind!r} has runs, but claims of all kinds pass it over")


async def check_kinds(pool: Pool, project_id: str) -> list[Finding]:
    """Return what is wrong with the settings of a project's kinds, and with their marks."""
    check = _Check(project_id)
    while not check.is_done:
        async with snapshot(pool) as connection:
            await check.page(connection)
    return list(dict.fromkeys(check.findings))


class _Settings(NamedTuple):
    number: int | None
    paused: bool
    max_running: int | None
    updated_at: Any

    def after(self, event: Mapping[str, Any]) -> _Settings:
        """Fold the next event, as the trigger does (`ledger/sql/guards/fold_kind_state.sql`)."""
        type_, number = event["type"], event["number"]
        return _Settings(
            number if self.number is not None and number == self.number + 1 else None,
            {"kind.paused": True, "kind.resumed": False}.get(type_, self.paused),
            event["max_running"] if type_ == "kind.limited" else self.max_running,
            event["recorded_at"],
        )


class _Check:
    """One check: how far it has read, and what it has found so far."""

    def __init__(self, project_id: str) -> None:
        self.findings: list[Finding] = []
        self._project_id = project_id
        self._events_from: tuple[str, int] | None = ("", _LOWEST)
        self._states_from: str | None = ""
        self._marks_from: str | None = ""
        self._kind: str | None = None
        self._settings = _UNSET

    @property
    def is_done(self) -> bool:
        """Whether everything has been read."""
        return self._events_from is None and self._states_from is None and self._marks_from is None

    async def page(self, connection: Any) -> None:
        """Read the next page of the events, of the settings and of the marks."""
        if self._events_from is not None:
            rows, more = await self._rows(connection, EVENTS, *self._events_from)
            for row in rows:
                self._fold(row)
            self._events_from = (more["kind"], more["number"]) if more else None
        if self._states_from is not None:
            rows, more = await self._rows(connection, STATES, self._states_from)
            for row in rows:
                if row["is_alone"]:
                    self._found(row["kind"], "has settings without an event")
            self._states_from = more["kind"] if more else None
        if self._marks_from is not None:
            rows, more = await self._rows(connection, _MARKED, self._marks_from)
            if rows:
                kinds = rows[0]["kind"], rows[-1]["kind"]
                hidden = await connection.fetch(_HIDDEN, self._project_id, *kinds)
                self.findings += (_hidden(row) for row in hidden)
            self._marks_from = more["kind"] if more else None

    async def _rows(self, connection: Any, query: str, *start: Any) -> tuple[list[Any], Any]:
        """Return a page from `start` on, and the row that the next begins with."""
        rows = await connection.fetch(query, _PAGE, self._project_id, *start)
        return rows[:_PAGE], rows[_PAGE] if len(rows) > _PAGE else None

    def _fold(self, event: Mapping[str, Any]) -> None:
        """Fold the next event: of the same kind, or the first of another."""
        kind = event["kind"]
        if kind != self._kind:
            self._kind, self._settings = kind, _UNSET
        self._settings = self._settings.after(event)
        if not event["is_last"]:
            return
        if event["set_number"] is None:
            self._found(kind, "has events, but no settings")
        elif self._settings != tuple(event[name] for name in _COLUMNS):
            self._found(kind, "has settings that are not the fold of its events")

    def _found(self, kind: str, problem: str) -> None:
        self.findings.append(Finding(None, None, "kind", f"{kind!r} {problem}"))


_UNSET: Final = _Settings(0, paused=False, max_running=None, updated_at=None)
_COLUMNS: Final = ("set_number", "set_paused", "set_max_running", "set_at")


def _hidden(row: Mapping[str, Any]) -> Finding:
    return Finding(
        row["run_id"],
        None,
        "kind",
        f"lies before the low-water mark of {row['kind']!r}: {row['walk']} pass over it"
        f" and {row['runs'] - 1:,} more",
    )
