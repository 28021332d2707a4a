"""The ranges of runs of a rebuild: cut from a sample, narrowed down around a bad run."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from runfold.ledger.months import FIRST_RUN, LAST_RUN
from runfold.projections.rebuild_plan import BadRun

_SAMPLED_BLOCKS: Final = 20_000
_BLOCKS: Final = """
SELECT sum(pg_relation_size(part.relid)) / current_setting('block_size')::int
FROM pg_partition_tree('ledger.event') AS part WHERE part.isleaf
"""
_SAMPLE: Final = """
SELECT event.run_id FROM ledger.event AS event TABLESAMPLE SYSTEM ($1)
WHERE $2::text IS NULL OR event.project_id = $2 ORDER BY event.run_id
"""
_CUT: Final = """
INSERT INTO ledger.rebuild_range (rebuild_id, first, last)
SELECT $1, * FROM unnest($2::uuid[], $3::uuid[])
"""
_DONE: Final = """
UPDATE ledger.rebuild_range
SET row_count = $3, event_count = $4, error = $5, done_at = clock_timestamp()
WHERE rebuild_id = $1 AND first = $2
"""
_ENDS: Final = """
SELECT (SELECT run_id FROM ledger.event
    WHERE ($1::text IS NULL OR project_id = $1) AND run_id BETWEEN $2 AND $3
    ORDER BY run_id LIMIT 1) AS lowest,
  (SELECT run_id FROM ledger.event
    WHERE ($1::text IS NULL OR project_id = $1) AND run_id BETWEEN $2 AND $3
    ORDER BY run_id DESC LIMIT 1) AS highest
"""
_SHRINK: Final = "UPDATE ledger.rebuild_range SET last = $3 WHERE rebuild_id = $1 AND first = $2"


async def cut(
    connection: Any, rebuild_id: int, project_id: str | None, events_a_range: int
) -> None:
    """Cut all runs into ranges of about `events_a_range` events."""
    firsts = await _firsts(connection, project_id, events_a_range)
    lasts = [*(UUID(int=first.int - 1) for first in firsts[1:]), LAST_RUN]
    await connection.execute(_CUT, rebuild_id, firsts, lasts)


async def mark_filled(
    connection: Any, rebuild_id: int, first: UUID, rows: int, events: int
) -> None:
    """Record that a range is filled, with so many rows from so many events."""
    await connection.execute(_DONE, rebuild_id, first, rows, events, None)


async def narrow(
    connection: Any,
    rebuild_id: int,
    project_id: str | None,
    bounds: tuple[UUID, UUID],
    failure: Exception,
) -> BadRun | None:
    """Cut a failing range in two; or mark and return its run when it has only one."""
    first, last = bounds
    ends = await connection.fetchrow(_ENDS, project_id, first, last)
    lowest, highest = ends["lowest"], ends["highest"]
    if lowest is None:
        raise failure
    if lowest != highest:
        middle = UUID(int=(lowest.int + highest.int) // 2)
        await connection.execute(_SHRINK, rebuild_id, first, middle)
        await connection.execute(_CUT, rebuild_id, [UUID(int=middle.int + 1)], [last])
        return None
    if first < lowest:
        await connection.execute(_SHRINK, rebuild_id, first, UUID(int=lowest.int - 1))
        await connection.execute(_CUT, rebuild_id, [lowest], [lowest])
    else:
        await connection.execute(_SHRINK, rebuild_id, first, lowest)
    if lowest < last:
        await connection.execute(_CUT, rebuild_id, [UUID(int=lowest.int + 1)], [last])
    await connection.execute(_DONE, rebuild_id, lowest, 0, 0, str(failure))
    return BadRun(lowest, str(failure))


async def _firsts(connection: Any, project_id: str | None, events_a_range: int) -> list[UUID]:
    """Return where ranges of about that many events begin, by a sample of the events' pages."""
    blocks = int(await connection.fetchval(_BLOCKS) or 0)
    percent = min(100.0, 100 * _SAMPLED_BLOCKS / max(blocks, 1))
    step = max(1, int(events_a_range * percent / 100))
    sampled = [row["run_id"] for row in await connection.fetch(_SAMPLE, percent, project_id)]
    return [FIRST_RUN, *sorted(set(sampled[step::step]))]
