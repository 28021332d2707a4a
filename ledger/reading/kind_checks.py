"""Checks of kinds: their settings against the fold of their events, and that no run is hidden.

A run is hidden from claims and reapers if its kind is not known, or if it lies before a low-water
mark of its kind (`ledger/sql/operations/move_low_water.sql`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from runfold.ledger.postgres.connections import Pool
from runfold.ledger.proof.chain import Finding
from runfold.ledger.reading.runs import KINDS
from runfold.ledger.reading.snapshot import snapshot

_EVENTS: Final = """
SELECT kind, number, recorded_at, type, max_running FROM ledger.kind_event
WHERE project_id = $1 ORDER BY kind, number
"""
_STATES: Final = """
SELECT kind, number, paused, max_running, updated_at FROM ledger.kind_state
WHERE project_id = $1 ORDER BY kind
"""
_HIDDEN: Final = """
WITH mark AS (
  SELECT DISTINCT ON (m.kind) m.* FROM ledger.low_water AS m
  WHERE m.project_id = $1 ORDER BY m.kind, m.number DESC
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
FROM hidden WHERE NOT EXISTS (SELECT FROM ledger.event AS e
  WHERE e.project_id = $1 AND e.run_id = hidden.run_id AND e.txid = ANY (hidden.open))
GROUP BY kind, walk ORDER BY kind, walk
"""


async def check_kinds(pool: Pool, project_id: str, kinds: Iterable[str]) -> list[Finding]:
    """Return what is wrong with a project's kinds; `kinds` are those of its runs."""
    async with snapshot(pool) as connection:
        events = await connection.fetch(_EVENTS, project_id)
        states = await connection.fetch(_STATES, project_id)
        known = {row["kind"] for row in await connection.fetch(KINDS, project_id)}
        hidden = await connection.fetch(_HIDDEN, project_id)
    return [
        *_differing(_folded(events), {row["kind"]: dict(row) for row in states}),
        *(
            Finding(None, None, "kind", f"{kind!r} has runs, but claims of all kinds pass it over")
            for kind in sorted(set(kinds) - known)
        ),
        *(
            Finding(
                row["run_id"],
                None,
                "kind",
                f"lies before the low-water mark of {row['kind']!r}: {row['walk']} pass over it"
                f" and {row['runs'] - 1:,} more",
            )
            for row in hidden
        ),
    ]


def _folded(events: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Fold the events of kinds as the trigger does (`ledger/sql/guards/fold_kind_state.sql`)."""
    states: dict[str, dict[str, Any]] = {}
    for event in events:
        kind, type_ = event["kind"], event["type"]
        before = states.get(kind)
        state = before or {"kind": kind, "number": 0, "paused": False, "max_running": None}
        states[kind] = {
            **state,
            "number": event["number"] if event["number"] == state["number"] + 1 else None,
            "paused": {"kind.paused": True, "kind.resumed": False}.get(type_, state["paused"]),
            "max_running": event["max_running"]
            if before is None or type_ == "kind.limited"
            else state["max_running"],
            "updated_at": event["recorded_at"],
        }
    return states


def _differing(
    wanted: Mapping[str, Mapping[str, Any]], held: Mapping[str, Mapping[str, Any]]
) -> Iterator[Finding]:
    for kind in sorted({*wanted, *held}):
        want, have = wanted.get(kind), held.get(kind)
        if want != have:
            problem = (
                "has settings without an event"
                if want is None
                else "has events, but no settings"
                if have is None
                else "has settings that are not the fold of its events"
            )
            yield Finding(None, None, "kind", f"{kind!r} {problem}")
