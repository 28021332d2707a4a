"""The checks of `runfold doctor`: each names what it found and the remedy."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from runfold.console.cli.health.database_status import DatabaseStatus
from runfold.ledger.postgres.connections import OLDEST_SERVER, fetch
from runfold.ledger.postgres.opening import Database

MAX_SKEW_SECONDS: Final = 2.0
SWEEPS_MISSED: Final = 3
WAITED_SECONDS: Final = 60.0
_COUNTED: Final = 1_000


class Level(StrEnum):
    """A check's result; only FAILED makes the ledger unhealthy."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Check:
    """What one check found."""

    name: str
    level: Level
    detail: str


def server(status: DatabaseStatus) -> Check:
    """Whether the server is recent enough."""
    level = Level.OK if status.supported else Level.FAILED
    return Check("server", level, f"PostgreSQL {status.server}, {OLDEST_SERVER} or newer is needed")


def revision(status: DatabaseStatus) -> Check:
    """Whether the schema is the one this program needs."""
    if status.revision == status.wanted:
        return Check("schema", Level.OK, f"revision {status.revision}")
    have = f"revision {status.revision}" if status.revision else "no Runfold schema"
    remedy = "install a newer runfold" if status.newer else "run `runfold db upgrade`"
    return Check("schema", Level.FAILED, f"{have}, this program needs {status.wanted}: {remedy}")


def functions(status: DatabaseStatus) -> Check:
    """Whether the functions in the database are this program's."""
    if status.functions_current:
        return Check("functions", Level.OK, "up to date")
    return Check("functions", Level.FAILED, "not this program's: run `runfold db upgrade`")


def partitions(status: DatabaseStatus) -> Check:
    """Whether the runs of this month and the next have a partition."""
    if status.months_ahead < 0:
        return Check(
            "partitions", Level.FAILED, "none takes this month's runs: run `runfold db upgrade`"
        )
    if status.months_ahead == 0:
        return Check(
            "partitions",
            Level.FAILED,
            "none takes next month's runs: run `runfold db upgrade`, keep a reaper running",
        )
    return Check("partitions", Level.OK, f"{status.months_ahead} months ahead")


async def clock(database: Database) -> Check:
    """Whether this machine's clock agrees with the database's."""
    began = time.monotonic()
    (row,) = await fetch(database.pool, "SELECT clock_timestamp() AS now")
    took = time.monotonic() - began
    skew = (datetime.now(UTC) - row["now"]).total_seconds() - took / 2
    detail = f"{skew * 1000:+,.0f} ms from the database's clock, which decides"
    return Check("clock", Level.OK if abs(skew) <= MAX_SKEW_SECONDS else Level.WARNING, detail)


_EXPIRED: Final = """
SELECT p.project_id, l.number, l.oldest FROM ledger.project AS p CROSS JOIN LATERAL (
  SELECT count(*) AS number, extract(epoch FROM ledger.now() - min(x.lease_until))::float8 AS oldest
  FROM (
    SELECT s.lease_until FROM ledger.run_state AS s
    WHERE s.project_id = p.project_id AND s.token IS NOT NULL AND s.lease_until < ledger.now() LIMIT $1
  ) AS x
) AS l WHERE l.number > 0 ORDER BY l.oldest DESC
"""


async def leases(database: Database, reaper_seconds: float) -> Check:
    """Whether a lease expired so long ago that a reaper should have repaired it."""
    rows = await fetch(database.pool, _EXPIRED, _COUNTED)
    if not rows:
        return Check("leases", Level.OK, "none has expired")
    shown = "; ".join(
        f"{_many(row['number'])} in project {row['project_id']}, {row['oldest']:.0f} s ago"
        for row in rows[:3]
    )
    if rows[0]["oldest"] <= SWEEPS_MISSED * reaper_seconds:
        return Check("leases", Level.OK, f"expired, reaped soon: {shown}")
    return Check(
        "leases", Level.FAILED, f"expired and not reaped: {shown}: keep `runfold reap` running"
    )


_UNSERVED: Final = """
SELECT p.project_id, k.kind, w.number, w.oldest FROM ledger.project AS p
CROSS JOIN LATERAL (SELECT DISTINCT x.kind FROM ledger.kind AS x WHERE x.project_id = p.project_id) AS k
CROSS JOIN LATERAL (
  SELECT count(*) AS number, extract(epoch FROM ledger.now() - min(x.available_at))::float8 AS oldest
  FROM (
    SELECT s.available_at FROM ledger.run_state AS s
    WHERE s.project_id = p.project_id AND s.kind = k.kind AND s.available_at < ledger.now() - make_interval(secs => $2) LIMIT $1
  ) AS x
) AS w
WHERE w.number > 0
  AND NOT EXISTS (SELECT FROM ledger.kind_state AS q WHERE q.project_id = p.project_id AND q.kind = k.kind AND q.paused)
  AND NOT EXISTS (
    SELECT FROM ledger.run_state AS h WHERE h.project_id = p.project_id AND h.kind = k.kind AND h.token IS NOT NULL)
ORDER BY w.oldest DESC
"""


async def served(database: Database) -> Check:
    """Whether a kind has runs that wait while no worker holds any of it."""
    rows = await fetch(database.pool, _UNSERVED, _COUNTED, WAITED_SECONDS)
    if not rows:
        return Check("kinds", Level.OK, "none waits without a worker")
    shown = "; ".join(
        f"{_many(row['number'])} of kind {row['kind']} in project {row['project_id']}, for {row['oldest']:.0f} s"
        for row in rows[:3]
    )
    return Check(
        "kinds",
        Level.WARNING,
        f"runs wait and no worker holds any of their kind: {shown}: does a worker serve it?",
    )


def _many(number: int) -> str:
    return f"{number}" if number < _COUNTED else f"{_COUNTED:,} or more"


_ROLE: Final = """
SELECT current_user::text AS login, r.rolsuper AS superuser,
  has_table_privilege('ledger.event', 'SELECT') AS reads,
  has_table_privilege('ledger.event', 'INSERT') AS inserts,
  has_function_privilege(f.oid, 'EXECUTE') AS works
FROM pg_roles AS r, pg_proc AS f
WHERE r.rolname = current_user AND f.pronamespace = to_regnamespace('ledger') AND f.proname = 'claim'
"""


async def privileges(database: Database) -> Check:
    """Whether the login can read the ledger, and no more than it should."""
    (row,) = await fetch(database.pool, _ROLE)
    if database.embedded:
        detail = f"login {row['login']} of the built-in server"
        return Check("privileges", Level.OK, detail)
    return _privileges(row)


def _privileges(row: Mapping[str, Any]) -> Check:
    login = f"login {row['login']}"
    if not row["reads"]:
        return Check(
            "privileges",
            Level.FAILED,
            f"{login} may not read: grant it runfold_worker or runfold_reader",
        )
    if row["superuser"]:
        return Check(
            "privileges",
            Level.WARNING,
            f"{login} is a superuser: give workers their own login with runfold_worker",
        )
    if row["inserts"]:
        return Check(
            "privileges",
            Level.WARNING,
            f"{login} may write tables directly: give workers a login with runfold_worker",
        )
    return Check(
        "privileges", Level.OK, f"{login} may read{' and work' if row['works'] else ' only'}"
    )
