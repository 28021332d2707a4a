"""Short snapshots of the ledger, of a range of runs each, which no bad row stops."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from runfold.ledger.months import FIRST_RUN, LAST_RUN
from runfold.ledger.postgres.connections import FAILURES, Pool, fetch
from runfold.ledger.postgres.errors import translated

EVENTS_A_RANGE: Final = 20_000
"""The events of a range, after which the snapshot is given up; a run is never cut."""

_BOUND: Final = """
SELECT event.run_id FROM ledger.event AS event WHERE event.project_id = $1
  AND event.run_id BETWEEN $2 AND $3
ORDER BY event.run_id, event.version OFFSET $4 LIMIT 1
"""
_PYTHON_TIMES: Final = (-63_082_281_600_000_000, 252_455_615_999_999_999)
"""The microseconds from 2000-01-01 that a datetime can hold: the years 1 to 9999."""
_INFINITIES: Final = {
    -(2**63): datetime.min,  # noqa: DTZ901  as the driver reads them
    2**63 - 1: datetime.max,  # noqa: DTZ901
}


async def ranges(
    pool: Pool, project_id: str, first: UUID = FIRST_RUN, last: UUID = LAST_RUN
) -> AsyncIterator[tuple[UUID, UUID]]:
    """Yield ranges of run ids, without a gap."""
    while True:
        bound = await fetch(pool, _BOUND, project_id, first, last, EVENTS_A_RANGE)
        end = bound[0]["run_id"] if bound else last
        yield first, end
        if end == last:
            return
        first = UUID(int=end.int + 1)


@asynccontextmanager
async def snapshot(pool: Pool) -> AsyncIterator[Any]:
    """Yield a connection in one snapshot, which reads every time, also one Python cannot hold.

    Database errors come out as ledger errors.
    """
    try:
        async with (
            pool.acquire() as connection,
            _every_time(connection),
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            # Before the snapshot: a month that is detached now is read here or known as archived.
            await connection.execute("LOCK TABLE ledger.event IN ACCESS SHARE MODE")
            yield connection
    except (*FAILURES, OSError) as error:
        raise translated(error) from error


@asynccontextmanager
async def _every_time(connection: Any) -> AsyncIterator[None]:
    await connection.set_type_codec(
        "timestamptz", schema="pg_catalog", encoder=_no_time, decoder=_time, format="tuple"
    )
    try:
        yield
    finally:
        await connection.reset_type_codec("timestamptz", schema="pg_catalog")


def _time(wire: tuple[int]) -> datetime | str:
    """Return an instant as the driver reads it; a text for one that Python cannot hold."""
    (microseconds,) = wire
    if microseconds in _INFINITIES:
        return _INFINITIES[microseconds]
    if not _PYTHON_TIMES[0] <= microseconds <= _PYTHON_TIMES[1]:
        return f"a time out of range, {microseconds} microseconds from 2000"
    return datetime(2000, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)


def _no_time(value: object) -> tuple[int]:
    raise TypeError(f"no statement of a check takes a time: {value!r}")
