"""The recorded repair of drifted runs: their rows become the fold of their events again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeAlias
from uuid import UUID

import asyncpg

from runfold.ledger import Ledger, names
from runfold.ledger.errors import LedgerError
from runfold.ledger.operations.project import Project
from runfold.ledger.postgres.connections import FAILURES
from runfold.ledger.postgres.errors import translated
from runfold.ledger.proof.fold import Drift
from runfold.ledger.reading.states import drift_of_runs
from runfold.ledger.validation import check_actor, check_text
from runfold.projections.state.repair_notes import note_repairs
from runfold.projections.state.run_state import COLUMNS, KEY

Connection: TypeAlias = "asyncpg.Connection[Any] | asyncpg.pool.PoolConnectionProxy[Any]"

REPAIRED: Final = "run_state.repaired"
"""The name of the note that a repair leaves on the run."""
_LOCK: Final = """
SELECT FROM ledger.run_state WHERE project_id = $1 AND run_id = ANY ($2::uuid[])
ORDER BY run_id FOR UPDATE
"""
_KINDS: Final = """
SELECT event.kind FROM ledger.event AS event
WHERE event.project_id = $1 AND event.run_id = ANY ($2::uuid[]) AND event.version = 1
"""
# The rows that ledger.move_low_water locks: no mark of the kinds moves until the repair has ended.
_HOLD_MARKS: Final = f"""
SELECT FROM ledger.kind AS known
WHERE known.project_id = $1 AND known.kind IN ({_KINDS}) AND known.run_id = (
  SELECT first.run_id FROM ledger.kind AS first
  WHERE first.project_id = $1 AND first.kind = known.kind ORDER BY first.run_id LIMIT 1)
ORDER BY known.kind FOR NO KEY UPDATE
"""
_FORGET_MARKS: Final = f"DELETE FROM ledger.low_water WHERE project_id = $1 AND kind IN ({_KINDS})"
_NAMES: Final = ", ".join((*KEY, *COLUMNS))
_REPLACE: Final = f"""
INSERT INTO ledger.run_state ({_NAMES})
SELECT {", ".join(f"run.{name}" for name in (*KEY, *COLUMNS))}
FROM unnest($2::uuid[]) AS chosen (run_id)
CROSS JOIN LATERAL ledger.rebuild_run_state($1, chosen.run_id, chosen.run_id) AS run
ON CONFLICT ({", ".join(KEY)}) DO UPDATE
SET {", ".join(f"{name} = EXCLUDED.{name}" for name in COLUMNS)}
"""
_REMOVE: Final = "DELETE FROM ledger.run_state WHERE project_id = $1 AND run_id = ANY ($2::uuid[])"


async def repair(ledger: Ledger, runs: Sequence[UUID], *, actor: str, reason: str) -> list[Drift]:
    """Make these rows the fold of their events again, in one transaction; return what was wrong.

    Each repaired run gets a note `run_state.repaired` that says what was stored, by whom it was
    repaired and why. A row without any events is removed and logged: there is no run to note it on.
    It takes the owner of the schema; raises AccessDenied, InvalidValue.
    """
    check_actor(actor)
    check_text("reason", reason, limit=1_000)
    try:
        async with ledger.pool.acquire() as connection, connection.transaction():
            return await repair_on(connection, ledger.project, runs, actor=actor, reason=reason)
    except (*FAILURES, OSError) as error:
        raise translated(error, (ledger.project_id,)) from error


async def repair_on(
    connection: Connection, project: Project, runs: Sequence[UUID], *, actor: str, reason: str
) -> list[Drift]:
    """Repair within an open transaction of the driver."""
    project_id = project.project_id
    # No month is detached meanwhile, whose runs would seem to have no events.
    await connection.execute("LOCK TABLE ledger.event IN ACCESS SHARE MODE")
    # One repair at a time: two that insert the same missing row would not see each other's notes.
    # By a table that is seldom written, and that no login but the owner's can lock.
    await connection.execute("LOCK TABLE ledger.feed_generation IN SHARE ROW EXCLUSIVE MODE")
    await connection.execute(_HOLD_MARKS, project_id, runs)  # before the runs, as a claim does
    await connection.execute(_LOCK, project_id, runs)
    drifted = await drift_of_runs(connection, project_id, runs)
    phantoms = [drift.run_id for drift in drifted if not drift.expected]
    repairable = [drift for drift in drifted if drift.expected]
    await connection.execute(_REMOVE, project_id, phantoms)
    for run_id in phantoms:
        project.log(run_id=str(run_id)).warning(
            names.PHANTOM_REMOVED, actor=actor, reason=project.order_reason(reason)
        )
    if repairable:
        repaired = [drift.run_id for drift in repairable]
        await connection.execute(_REPLACE, project_id, repaired)
        await connection.execute(_FORGET_MARKS, project_id, repaired)  # which may have passed them
        if still := await drift_of_runs(connection, project_id, repaired):
            raise LedgerError(
                f"the database's own fold is not this program's: {still[0]}; nothing was repaired: "
                "run `runfold doctor`"
            )
        notes = {drift.run_id: f"{reason}: {drift}" for drift in repairable}
        await note_repairs(connection, project, REPAIRED, notes, actor=actor)
    return drifted
