"""Short snapshots of the ledger, of a range of runs each, which no bad row stops."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
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
_FIRST_DAY: Final = date(2000, 1, 1)
_FIRST_INSTANT: Final = datetime(2000, 1, 1, tzinfo=UTC)
"""From where PostgreSQL counts days and microseconds."""
_INFINITE_DAYS: Final = {-(2**31): "-infinity", 2**31 - 1: "infinity"}
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
            every_time(connection),
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            # Before the snapshot: a month that is detached now is read here or known as archived.
            await connection.execute("LOCK TABLE ledger.event IN ACCESS SHARE MODE")
            yield connection
    except (*FAILURES, OSError) as error:
        raise translated(error) from error


@asynccontextmanager
async def every_time(connection: Any) -> AsyncIterator[None]:
    """Have the connection read every date, time and interval: as text where Python has no such."""
    for type_, read in _READERS.items():
        await connection.set_type_codec(
            type_, schema="pg_catalog", encoder=_no_time, decoder=read, format="tuple"
        )
    try:
        yield
    finally:
        for type_ in _READERS:
            await connection.reset_type_codec(type_, schema="pg_catalog")


def _day(wire: tuple[int]) -> date | str:
    (days,) = wire
    if days in _INFINITE_DAYS:
        return _INFINITE_DAYS[days]
    try:
        return _FIRST_DAY + timedelta(days=days)
    except OverflowError:
        return f"a date out of range, {days} days from 2000"


def _time(wire: tuple[int]) -> datetime | str:
    (microseconds,) = wire
    if microseconds in _INFINITIES:
        return _INFINITIES[microseconds]
    try:
        return _FIRST_INSTANT + timedelta(microseconds=microseconds)
    except OverflowError:
        return f"a time out of range, {microseconds} microseconds from 2000"


def _interval(wire: tuple[int, int, int]) -> timedelta | str:
    months, days, microseconds = wire
    years = int(months / 12)
    try:
        return timedelta(
            days=365 * years + 30 * (months - 12 * years) + days, microseconds=microseconds
        )
    except OverflowError:
        return (
            f"an interval out of range, {months} months, {days} days, {microseconds} microseconds"
        )


_READERS: Final = {"date": _day, "timestamptz": _time, "interval": _interval}
"""By type, as the driver reads it where it can."""


def _no_time(value: object) -> tuple[int]:
    raise TypeError(f"no statement here takes a time: {value!r}")
