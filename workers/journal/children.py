"""Runs that wait for a child: the worker that ends it answers them, else the reaper's sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from runfold.ledger import Ledger, Run, State
from runfold.ledger.errors import IllegalTransition, LeaseRequired, PayloadTooLarge, VersionConflict
from runfold.ledger.lifecycle import HANDLER_FAILED
from runfold.ledger.payload import Unreadable
from runfold.ledger.postgres.connections import fetch

PAGE: Final = 1_000
TRIES: Final = 5
_PARKED: Final = "SELECT run_id FROM ledger.parked_runs($1) AS run_id"
# Lateral with OFFSET 0, so that each parked run is looked up by its key whatever the planner thinks
# of their number. The request is looked for backwards, by a range: see ledger.newest_request.
_ENDED: Final = """
SELECT parent.run_id, parent.version, child.run_id AS child_id
FROM unnest($2::uuid[]) AS wanted (run_id)
CROSS JOIN LATERAL (
  SELECT run.run_id, run.version FROM ledger.run_state AS run
  WHERE run.project_id = $1 AND run.run_id = wanted.run_id AND run.state = 'waiting_tool'
    AND run.token IS NULL AND run.available_at IS NULL
  OFFSET 0) AS parent
CROSS JOIN LATERAL (
  SELECT event.version, event.name FROM ledger.event AS event
  WHERE event.project_id = $1 AND event.run_id >= parent.run_id AND event.run_id <= parent.run_id
    AND event.type = 'tool.requested'
  ORDER BY event.run_id DESC, event.version DESC LIMIT 1) AS asked
CROSS JOIN LATERAL (
  -- A child by its name, an id by its form: what other tools are given does not matter here.
  SELECT substring(payload.body #>> '{input,child}'
    FROM '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$') AS child
  FROM ledger.payload AS payload
  WHERE payload.project_id = $1 AND payload.run_id = parent.run_id
    AND payload.version = asked.version AND starts_with(asked.name, 'child:')
  OFFSET 0) AS input
CROSS JOIN LATERAL (
  SELECT run.run_id FROM ledger.run_state AS run
  WHERE run.project_id = $1 AND run.run_id = input.child::uuid
    AND run.completed_at IS NOT NULL OFFSET 0) AS child
"""


async def sweep(ledger: Ledger) -> int:
    """Answer each parked run whose child has ended, 1,000 runs a statement; return how many."""
    parked = [row["run_id"] for row in await fetch(ledger.pool, _PARKED, ledger.project_id)]
    pages = [parked[first : first + PAGE] for first in range(0, len(parked), PAGE)]
    return sum([await answer(ledger, page) for page in pages])


async def answer(ledger: Ledger, parents: Sequence[UUID]) -> int:
    """Answer those of these runs whose child has ended; of several processes, one succeeds."""
    answered = 0
    for _ in range(TRIES):
        rows = await fetch(ledger.pool, _ENDED, ledger.project_id, list(parents)) if parents else []
        if not rows:
            break
        answered += sum([await _answered(ledger, row) for row in rows])
    return answered


async def _answered(ledger: Ledger, row: Mapping[str, Any]) -> bool:
    output, error = outcome_of(await ledger.get(row["child_id"]))
    facts: dict[str, Any] = {"output": output} if error is None else _failed(error)
    try:
        await _answer(ledger, row, facts)
    except (VersionConflict, IllegalTransition, LeaseRequired):
        return False  # another process answered it, or a late beat came between
    except PayloadTooLarge as error:  # here the limit is lower than where the child ran
        await _answer(ledger, row, _failed({"type": "PayloadTooLarge", "message": str(error)}))
    return True


async def _answer(ledger: Ledger, row: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    await ledger.transition(row["run_id"], State.RUNNING, expected_version=row["version"], **facts)


def _failed(detail: Mapping[str, str]) -> dict[str, Any]:
    return {"error_code": HANDLER_FAILED, "error_detail": dict(detail)}


def outcome_of(child: Run) -> tuple[Any, dict[str, str] | None]:
    """Return the output of an ended run, or the error that its parent sees."""
    if isinstance(child.output, Unreadable):
        return None, {"type": "Unreadable", "message": f"child {child.run_id}: {child.output}"}
    if child.state == State.COMPLETED:
        return child.output, None
    code = f" ({child.error_code})" if child.error_code else ""
    return None, {
        "type": "ChildFailed",
        "message": f"child {child.run_id} ended as {child.state}{code}",
    }
