"""Checking that the ledger tells the truth about itself: chain, payloads, gaps, state and keys.

Events and payloads are read from their tables and hashes are computed here, by the Python
definition; of the database's own functions only the fold of drift is used.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from runfold.ledger.archive import checking
from runfold.ledger.archive.record import detached
from runfold.ledger.postgres.connections import FAILURES, Pool
from runfold.ledger.postgres.errors import translated
from runfold.ledger.proof.chain import ChainCheck, Finding, forgotten_key

MAX_FINDINGS: Final = 100
_PAGE: Final = 5_000
_FIRST: Final = UUID(int=0)
_LAST: Final = UUID(int=2**128 - 1)

_EVENTS: Final = """
SELECT e.*, p.salt, p.body FROM ledger.event AS e
LEFT JOIN ledger.payload AS p
  ON p.project_id = e.project_id AND p.run_id = e.run_id AND p.version = e.version
WHERE e.project_id = $1 AND e.run_id BETWEEN $2 AND $3
ORDER BY e.run_id, e.version
"""
_PYTHON_TIMES: Final = (-63_082_281_600_000_000, 252_455_615_999_999_999)
"""The microseconds from 2000-01-01 that a datetime can hold: the years 1 to 9999."""
_INFINITIES: Final = {
    -(2**63): datetime.min,  # noqa: DTZ901  as the driver reads them
    2**63 - 1: datetime.max,  # noqa: DTZ901
}
_COUNT: Final = (
    "SELECT count(*) FROM ledger.event WHERE project_id = $1 AND run_id BETWEEN $2 AND $3"
)
_ORPHANS: Final = (
    "SELECT p.run_id, p.version FROM ledger.payload AS p "
    "WHERE p.project_id = $1 AND p.run_id BETWEEN $2 AND $3 "
    "AND NOT EXISTS (SELECT FROM ledger.event AS e "
    "WHERE e.project_id = p.project_id AND e.run_id = p.run_id "
    "AND e.version = p.version) "
    "AND NOT EXISTS (SELECT FROM ledger.archive AS a "
    "WHERE a.detached AND p.run_id >= a.first AND p.run_id < a.beyond) LIMIT $4"
)
_FORGOTTEN: Final = (
    "SELECT e.run_id, e.version, e.key FROM ledger.event AS e "
    "WHERE e.project_id = $1 AND e.run_id BETWEEN $2 AND $3 AND e.key IS NOT NULL "
    "AND NOT EXISTS (SELECT FROM ledger.command AS c "
    "WHERE c.project_id = e.project_id AND c.key = e.key "
    "AND c.run_id = e.run_id AND c.version = e.version) ORDER BY e.run_id, e.version LIMIT $4"
)
# Whoever has the salt of an erased content's key finds the content by guessing.
_GUESSABLE: Final = """
SELECT c.run_id, c.version, c.key FROM ledger.event AS x
JOIN ledger.event AS e
  ON e.project_id = x.project_id AND e.run_id = x.run_id AND e.version = x.compensates
JOIN ledger.command AS c ON c.project_id = e.project_id AND c.key = e.key AND c.salt IS NOT NULL
WHERE x.project_id = $1 AND x.run_id BETWEEN $2 AND $3 AND x.type = 'payload.erased'
ORDER BY c.run_id, c.version LIMIT $4
"""
# Of a whole project only: by run there is no way into the table but all of it.
_INVENTED: Final = (
    "SELECT c.run_id, c.version, c.key FROM ledger.command AS c WHERE c.project_id = $1 "
    "AND NOT EXISTS (SELECT FROM ledger.event AS e "
    "WHERE e.project_id = c.project_id AND e.run_id = c.run_id "
    "AND e.version = c.version AND e.key = c.key) "
    "AND NOT EXISTS (SELECT FROM ledger.archive AS a "
    "WHERE a.detached AND c.run_id >= a.first AND c.run_id < a.beyond) "
    "ORDER BY c.run_id, c.version LIMIT $2"
)
_DRIFT: Final = "SELECT * FROM ledger.drift_run_state($1, $2, $3) LIMIT $4"


@dataclass(frozen=True, slots=True)
class Report:
    """What was checked and what was found; `ok` when nothing was found wrong."""

    runs: int
    events: int
    payloads: int
    erased: int
    findings: tuple[Finding, ...] = field(default=())
    """At most 100, the first bad event first."""

    @property
    def ok(self) -> bool:
        """Whether every check passed."""
        return not self.findings


async def verify(
    pool: Pool,
    project_id: str,
    run_id: UUID | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Check one run or a whole project, archived months too, in one snapshot; memory stays flat.

    `progress` is told how many of how many events are done.
    """
    first, last = (_FIRST, _LAST) if run_id is None else (run_id, run_id)
    try:
        return await _verify(pool, project_id, first, last, progress)
    except (*FAILURES, OSError) as error:
        raise translated(error, (project_id,)) from error


def _time(wire: tuple[int]) -> datetime | str:
    """Return an instant as the driver reads it; a text for one that Python cannot hold."""
    (microseconds,) = wire
    if microseconds in _INFINITIES:
        return _INFINITIES[microseconds]
    if not _PYTHON_TIMES[0] <= microseconds <= _PYTHON_TIMES[1]:
        return f"a time out of range, {microseconds} microseconds from 2000"
    return datetime(2000, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)


@asynccontextmanager
async def _reading_any_time(pool: Pool) -> AsyncIterator[Any]:
    """Borrow a connection that reads every time, also one that a datetime cannot hold."""
    async with pool.acquire() as connection:
        await connection.set_type_codec(
            "timestamptz", schema="pg_catalog", encoder=_no_time, decoder=_time, format="tuple"
        )
        try:
            yield connection
        finally:
            await connection.reset_type_codec("timestamptz", schema="pg_catalog")


def _no_time(value: object) -> tuple[int]:
    raise TypeError(f"no statement of verify takes a time: {value!r}")


async def _verify(
    pool: Pool,
    project_id: str,
    first: UUID,
    last: UUID,
    progress: Callable[[int, int], None] | None,
) -> Report:
    chain = ChainCheck()
    async with (
        _reading_any_time(pool) as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        # Before the snapshot: a month that is detached now is read here or known as archived.
        await connection.execute("LOCK TABLE ledger.event IN ACCESS SHARE MODE")
        archives = await detached(connection, first, last)
        total = await connection.fetchval(_COUNT, project_id, first, last) if progress else 0
        async for row in connection.cursor(_EVENTS, project_id, first, last, prefetch=_PAGE):
            chain.add(row)
            if progress and chain.events % _PAGE == 0:
                progress(chain.events, total)
        found: list[Finding] = []
        drifted: list[Mapping[str, Any]] = []
        for month in archives:
            wrong, differing = await checking.check(
                connection, month, project_id, first, last, chain=chain
            )
            found, drifted = found + wrong, drifted + differing
        chain.close()
        orphans = await connection.fetch(_ORPHANS, project_id, first, last, MAX_FINDINGS)
        forgotten = await connection.fetch(_FORGOTTEN, project_id, first, last, MAX_FINDINGS)
        guessable = await connection.fetch(_GUESSABLE, project_id, first, last, MAX_FINDINGS)
        invented = (
            [] if first == last else await connection.fetch(_INVENTED, project_id, MAX_FINDINGS)
        )
        drifted += await connection.fetch(_DRIFT, project_id, first, last, MAX_FINDINGS)
    if progress:
        progress(chain.events, total)
    findings = [
        *chain.findings,
        *found,
        *(_drift(row) for row in drifted),
        *(
            Finding(row["run_id"], row["version"], "payload", "a payload that belongs to no event")
            for row in orphans
        ),
        *(forgotten_key(*row.values()) for row in forgotten),
        *(_guessable(*row.values()) for row in guessable),
        *(_invented(*row.values()) for row in invented),
    ]
    return Report(
        chain.runs, chain.events, chain.payloads, chain.erased, tuple(findings[:MAX_FINDINGS])
    )


def _invented(run_id: UUID, version: int, key: str) -> Finding:
    return Finding(
        run_id,
        version,
        "key",
        f"the idempotency key {key!r} belongs to no such event: its command would be refused",
    )


def _guessable(run_id: UUID, version: int, key: str) -> Finding:
    return Finding(
        run_id,
        version,
        "key",
        f"the content is gone, but its key {key!r} still has its salt: the content can be guessed",
    )


def _drift(row: Mapping[str, Any]) -> Finding:
    if row["have"] is None or row["want"] is None:
        problem = "run_state has no row" if row["have"] is None else "the run has no events"
        return Finding(row["run_id"], None, "drift", problem)
    found = differences(row["want"], row["have"])
    shown = "; ".join(
        f"{name} is {have!r}, its events say {want!r}" for name, (want, have) in found.items()
    )
    return Finding(
        row["run_id"], None, "drift", f"run_state differs from the fold of the events: {shown}"
    )


def differences(want: str | None, have: str | None) -> dict[str, tuple[Any, Any]]:
    """Return the columns in which two rows, as JSON objects, differ, with what each holds.

    None stands for the values of a missing row.
    """
    wanted, held = (json.loads(text or "{}", parse_float=Decimal) for text in (want, have))
    return {
        name: (wanted.get(name), held.get(name))
        for name in {**wanted, **held}
        if wanted.get(name) != held.get(name)
    }
