"""Replay of `run_state`: rebuilt beside the live table, compared, exchanged row by row.

Why rows and not the table: docs/decisions/0020. Nothing is locked but the rows that are wrong.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from runfold.ledger import Ledger
from runfold.ledger.archive.attach import attached
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.postgres.locks import with_lock_retries
from runfold.ledger.proof.fold import Drift
from runfold.ledger.reading.past import check_project_instant
from runfold.ledger.validation import check_actor, check_text
from runfold.projections.rebuild import EVENTS_A_RANGE, Rebuild, drop_old
from runfold.projections.rebuild_plan import BadRun, OnProgress, RebuildPlan, RebuildProgress
from runfold.projections.state.drift import compare
from runfold.projections.state.repair import repair_on
from runfold.projections.state.run_state import TABLE

AT_ONCE: Final = 500

_CREATE: Final = """
CREATE TABLE {shadow} (LIKE ledger.run_state INCLUDING CONSTRAINTS,
  PRIMARY KEY (project_id, run_id))
"""
_FILL: Final = """
WITH filled AS (
  INSERT INTO {shadow} SELECT run.* FROM ledger.rebuild_run_state($3, $1, $2, NULL, $4) AS run
  RETURNING version
)
SELECT count(*) AS rows, coalesce(sum(version), 0)::bigint AS events FROM filled
"""
_RANGES: Final = """
SELECT first, last FROM ledger.rebuild_range WHERE rebuild_id = $1 AND error IS NULL ORDER BY first
"""
# Different, missing here, missing there; or changed since the shadow was filled: `compare` decides.
_SUSPECT: Final = """
SELECT coalesce((stored.live).run_id, (folded.rebuilt).run_id) AS run_id
FROM (
  SELECT live FROM ledger.run_state AS live
  WHERE live.project_id = $1 AND live.run_id BETWEEN $2 AND $3
) AS stored FULL JOIN (
  SELECT rebuilt FROM {shadow} AS rebuilt
  WHERE rebuilt.project_id = $1 AND rebuilt.run_id BETWEEN $2 AND $3
) AS folded
  ON (stored.live).run_id = (folded.rebuilt).run_id
WHERE (stored.live)::record IS DISTINCT FROM (folded.rebuilt)::record
ORDER BY 1
"""
_KEPT: Final = (
    "CREATE TABLE IF NOT EXISTS {old} (LIKE ledger.run_state, PRIMARY KEY (project_id, run_id))"
)
_KEEP: Final = """
INSERT INTO {old} SELECT run.* FROM ledger.run_state AS run
WHERE run.project_id = $1 AND run.run_id = ANY ($2::uuid[])
ON CONFLICT DO NOTHING
"""


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay did: its counts, runs that cannot be folded, rows that it exchanged."""

    rebuild_id: int
    resumed: bool
    progress: RebuildProgress
    bad: Sequence[BadRun]
    wrong: int
    kept_in: str | None
    """The table that has the wrong rows as they were; with `until`, the state as it was then."""


def plan(project_id: str, until: datetime | None = None) -> RebuildPlan:
    """Return how `run_state` of a project is rebuilt, as it is or as it was."""
    return RebuildPlan(TABLE, _CREATE, _FILL, (project_id, until), project_id, until)


async def replay(
    ledger: Ledger,
    *,
    actor: str,
    reason: str,
    connections: int = 2,
    strict: bool = False,
    on_progress: OnProgress | None = None,
    events_a_range: int = EVENTS_A_RANGE,
) -> Replayed:
    """Rebuild the state of a project beside the live one, and exchange the rows that are wrong.

    Writers go on meanwhile; a killed replay is resumed. Every exchanged row is noted on its run, as
    a repair is, and kept as it was in a table until `drop_replaced`. Needs the owner of the schema;
    raises AccessDenied, RebuildFailed, RebuildRunning or LockTimeout.
    """
    check_actor(actor)
    check_text("reason", reason, limit=1_000)
    async with (
        attached(ledger.pool),
        Rebuild.begin(
            ledger.pool, plan(ledger.project_id), events_a_range=events_a_range
        ) as rebuild,
    ):
        bad = await rebuild.fill(connections, strict=strict, on_progress=on_progress)
        progress = await rebuild.progress()
        old, wrong = f"{rebuild.shadow}_replaced", 0
        async for drifted in wrong_rows(ledger, rebuild):
            runs = [drift.run_id for drift in drifted]
            wrong += len(await exchange(ledger, runs, old, actor=actor, reason=reason))
        await rebuild.finish(keep=False)
    return Replayed(
        rebuild.rebuild_id, rebuild.resumed, progress, bad, wrong, old if wrong else None
    )


async def replay_until(
    ledger: Ledger,
    until: datetime,
    *,
    connections: int = 2,
    strict: bool = False,
    on_progress: OnProgress | None = None,
    events_a_range: int = EVENTS_A_RANGE,
) -> Replayed:
    """Build the state as it was at an instant into a table beside the live one.

    Raises as `replay` does, and FutureInstant or BeforeFirstEvent for an instant that has no state.
    """
    await check_project_instant(ledger.pool, ledger.project_id, until)
    async with (
        attached(ledger.pool),
        Rebuild.begin(
            ledger.pool, plan(ledger.project_id, until), events_a_range=events_a_range
        ) as rebuild,
    ):
        bad = await rebuild.fill(connections, strict=strict, on_progress=on_progress)
        progress = await rebuild.progress()
        await rebuild.finish(keep=True)
    return Replayed(rebuild.rebuild_id, rebuild.resumed, progress, bad, 0, rebuild.shadow)


async def drop_replaced(ledger: Ledger) -> list[str]:
    """Drop the tables that finished replays of the project left behind; return their names."""
    return await drop_old(ledger.pool, plan(ledger.project_id))


async def wrong_rows(ledger: Ledger, rebuild: Rebuild) -> AsyncIterator[list[Drift]]:
    """Yield the rows that are not the fold of their events, range by range."""
    for row in await fetch(ledger.pool, _RANGES, rebuild.rebuild_id):
        suspects = await fetch(
            ledger.pool,
            _SUSPECT.format(shadow=rebuild.shadow),
            ledger.project_id,
            row["first"],
            row["last"],
        )
        for start in range(0, len(suspects), AT_ONCE):
            some = [suspect["run_id"] for suspect in suspects[start : start + AT_ONCE]]
            if drifted := await compare(ledger, some):
                yield drifted


async def exchange(
    ledger: Ledger, runs: Sequence[UUID], old: str, *, actor: str, reason: str
) -> list[Drift]:
    """Make these rows the fold of their events in one transaction; keep what they were in `old`.

    Raises LockTimeout.
    """

    async def work(connection: Any) -> list[Drift]:
        await connection.execute(_KEPT.format(old=old))
        await connection.execute(_KEEP.format(old=old), ledger.project_id, runs)
        return await repair_on(connection, ledger.project, runs, actor=actor, reason=reason)

    return await with_lock_retries(ledger.pool, work, f"{len(runs)} rows", ledger.project_id)
