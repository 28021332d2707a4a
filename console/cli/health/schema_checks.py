"""Checks of the schema: its revision, its functions, its partitions and its feed."""

from __future__ import annotations

from typing import Final

from runfold.console.cli.health.check import Check, Level
from runfold.console.cli.health.database_status import DatabaseStatus
from runfold.console.shared.plain import number_of
from runfold.ledger.postgres import schema
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.postgres.indexes import Index
from runfold.ledger.postgres.opening import Database


def revision(status: DatabaseStatus) -> Check:
    """Whether the schema is the one this program needs, or a newer one that works with it."""
    if status.revision == status.wanted:
        return Check("schema", Level.OK, f"revision {status.revision}")
    if status.works:
        return Check(
            "schema", Level.OK, f"revision {status.revision}, newer, works with {status.wanted}"
        )
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
    return Check("partitions", Level.OK, f"{number_of(status.months_ahead, 'month')} ahead")


_INVALID: Final = """
SELECT index.indexrelid::regclass::text AS name FROM pg_index AS index
JOIN pg_class AS relation ON relation.oid = index.indexrelid
WHERE relation.relnamespace IN ('ledger'::regnamespace, 'projection'::regnamespace)
  AND NOT index.indisvalid
ORDER BY 1
"""
_MISSING: Final = """
SELECT wanted.name FROM unnest($1::text[]) AS wanted (name)
WHERE to_regclass(format('ledger.%I', wanted.name)) IS NULL ORDER BY 1
"""


async def indexes(database: Database) -> Check:
    """Whether the indexes that are built beside a working fleet are there, and all are valid."""
    declared = [Index.parse(text).name for text in schema.indexes()]
    invalid = [row["name"] for row in await fetch(database.pool, _INVALID)]
    missing = [row["name"] for row in await fetch(database.pool, _MISSING, declared)]
    problems = [f"{name} is invalid" for name in invalid]
    problems += [f"ledger.{name} is missing" for name in missing]
    if not problems:
        return Check("indexes", Level.OK, "all are valid")
    remedy = "`runfold db upgrade` builds the ledger's anew, DROP INDEX removes one of your own"
    return Check("indexes", Level.FAILED, f"{', '.join(problems)}: {remedy}")


_FEED: Final = """
SELECT sequence.last_value AS next, sequence.is_called,
  greatest((SELECT event.position FROM ledger.newest_events(1) AS event),
    (SELECT event.position FROM ledger.event AS event
      ORDER BY event.txid DESC, event.position DESC LIMIT 1)
  ) AS newest
FROM ledger.event_position AS sequence
"""


async def feed(database: Database) -> Check:
    """Whether the sequence of positions is ahead of the events; replication may leave it behind."""
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
