"""Checks of the schema: its revision, its functions, its partitions and its feed."""

from __future__ import annotations

from typing import Final

from runfold.console.cli.health.check import Check, Level
from runfold.console.cli.health.database_status import DatabaseStatus
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.postgres.opening import Database


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


_FEED: Final = """
SELECT q.last_value AS next, q.is_called,
  (SELECT e.position FROM ledger.event AS e ORDER BY e.txid DESC, e.position DESC LIMIT 1) AS newest
FROM ledger.event_position AS q
"""


async def feed(database: Database) -> Check:
    """Whether the sequence of positions is ahead of the events, as replication may leave it not."""
    (row,) = await fetch(database.pool, _FEED)
    newest = row["newest"] or 0
    if newest <= (row["next"] if row["is_called"] else 0):
        return Check("feed", Level.OK, f"position {newest:,}")
    return Check(
        "feed",
        Level.FAILED,
        f"the newest event has position {newest:,}, the sequence is at {row['next']:,}: new events "
        "would be passed over: run `runfold projections rebase`",
    )
