"""Whatever column a superuser changes is named, or is listed here with the reason."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

import asyncpg
import pytest

from runfold.console.cli.health import schema_checks, work_checks
from runfold.console.cli.health.check import Level
from runfold.console.cli.health.database_status import database_status
from runfold.ledger import Ledger, State, access, api_tokens, users, views
from runfold.ledger.errors import LedgerError
from runfold.ledger.events import NoteAdded
from runfold.ledger.postgres.opening import opened
from runfold.ledger.postgres.urls import driver_url
from runfold.ledger.roles import grant
from runfold.ledger.settings import Settings
from runfold.projections import CatchUp, Projection, count, install
from tests.support.archiving import WHY, ended
from tests.support.databases import PROJECT
from tests.support.past_month import MONTH, in_that_month
from tests.support.runs import claimed

# Whose change nobody names, and why.
READERS = "the bookkeeping of readers: a projection is rebuilt from the events and compared"
MOVES = "moves with each due time or use, without anybody's order"
ORDER = "the order of one database's events for its readers, no fact of a run"
COMPARED = "has a repeated command refused or taken for the first; invents no event"
WAKES = "names the channel of wake-ups, which are hints: polling is the guarantee"
MARKS = "verify names each run that lies before a mark, by a test of its own"
TOLD = "what was told to the world outside follows from the events, and is no fact of a run"
READ = "who looked at a run is no fact of it; append-only, and not chained"
PUT_OFF = "hides a request from one person for a while, who chose to; no fact of a run"
SHARED = "a query that readers share under a name, and any of them changes; no fact of a run"
SIGNED_IN = "lets somebody in who was not; what they then do is on record as theirs"
AT_WORK = "who works on the schema now; gone when that is done"
UNUSED = "nothing follows from it"

ALLOWED_TABLES: Final = {
    "at_work": AT_WORK, "credential_use": MOVES, "delivery": TOLD, "delivery_attempt": TOLD,
    "low_water": MARKS,
    "payload_read": READ, "saved_view": SHARED, "snooze": PUT_OFF, "webhook_secret": TOLD,
    "view_event": SHARED,
    "user_password": SIGNED_IN, "web_session": SIGNED_IN,
    "feed_generation": READERS, "projection": READERS, "projection_aside": READERS,
    "projection_skip": READERS, "rebuild": READERS, "rebuild_range": READERS,
}  # fmt: skip
ALLOWED_COLUMNS: Final = {
    "command.content_hash": COMPARED, "command.salt": COMPARED, "event.position": ORDER,
    "event.txid": ORDER, "kind.run_id": UNUSED, "project.channel": WAKES,
    "schedule.last_due": MOVES, "schedule.next_at": MOVES, "schedule.updated_at": MOVES,
    "webhook.checkpoint": READERS,
}  # fmt: skip

EVENTS = Projection("tampered", key={"actor": "actor"}, columns={"events": count()})
TAMPERED: Final = {
    "int4": "coalesce({c}, 0) + 41",
    "int8": "coalesce({c}, 0) + 41",
    "numeric": "coalesce({c}, 0) + 1",
    "bool": "NOT coalesce({c}, false)",
    "text": "'x' || left(coalesce({c}, ''), 5)",
    "varchar": "'x' || left(coalesce({c}, ''), 5)",
    "json": """'{{"input":"tampered"}}'""",
    "bytea": "coalesce({c}, '') || '\\x00'",
    "timestamptz": "coalesce({c}, '2020-01-01Z') + interval '1 microsecond'",
    "_text": "coalesce({c}, '{{}}') || ARRAY['planted']",
    "xid8": "(coalesce({c}::text, '7')::bigint + 1)::text::xid8",
    # The last digit only: an event stays in its partition.
    "uuid": "(left(coalesce({c}, gen_random_uuid())::text, 35) || "
    "CASE right({c}::text, 1) WHEN '0' THEN '1' ELSE '0' END)::uuid",
}  # fmt: skip
COLUMNS: Final = """
SELECT c.relname AS table, a.attname AS column, t.typname AS type
FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0
  AND NOT a.attisdropped JOIN pg_type AS t ON t.oid = a.atttypid
WHERE c.relnamespace = 'ledger'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
ORDER BY c.relname, a.attnum
"""
DEFENCELESS: Final = """
DO $$ DECLARE found record; BEGIN
  FOR found IN SELECT conrelid::regclass AS relation, conname FROM pg_constraint
    WHERE connamespace = 'ledger'::regnamespace AND contype IN ('c', 'f') AND conparentid = 0
      AND coninhcount = 0
  LOOP
    EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', found.relation, found.conname);
  END LOOP;
  FOR found IN SELECT attrelid::regclass AS relation, attname FROM pg_attribute
    JOIN pg_class ON pg_class.oid = attrelid
    WHERE relnamespace = 'ledger'::regnamespace AND attidentity <> ''
  LOOP
    EXECUTE format('ALTER TABLE %s ALTER COLUMN %I DROP IDENTITY', found.relation, found.attname);
  END LOOP;
  FOR found IN SELECT oid::regclass AS relation FROM pg_class
    WHERE relnamespace = 'ledger'::regnamespace AND relkind IN ('r', 'p')
  LOOP
    EXECUTE format('ALTER TABLE %s DISABLE TRIGGER ALL', found.relation);
  END LOOP;
END $$
"""


@pytest.fixture
async def mallory(unverified_database: str) -> AsyncIterator[asyncpg.Connection]:
    """A superuser."""
    connection = await asyncpg.connect(driver_url(unverified_database))
    yield connection
    await connection.close()


async def worked(url: str, mallory: asyncpg.Connection, folder: Path) -> None:
    """Leave a row in every table."""
    async with Ledger.open(url, PROJECT) as ledger:
        async with in_that_month(mallory):
            await ended(ledger, key="archived")
        await ledger.archive.export(MONTH, folder, **WHY)
        lease = await claimed(ledger, input="a", tags=["t"], deadline=3600, key="k", delay=0)
        await ledger.append(lease, NoteAdded(name="n", text="x"), key="note")
        lease = (await ledger.heartbeat([lease]))[0]
        await ledger.retry(lease, error_code="E-TEST", error_detail="twice")
        [lease] = await ledger.claim("w:2")
        await ledger.transition(
            lease, State.WAITING_TOOL, name="wc", cost_usd_delta=1, step_count_delta=1
        )
        await ledger.transition(lease, State.RUNNING, output="y")
        await ledger.complete(lease, output={"lines": 3}, key="end")
        await ledger.pause_kind("parse")
        await ledger.limit_kind("load", 3, ahead=True)
        await grant(ledger.project, "release", "ann", actor="bob", reason="on call")
        await ledger.schedule("nightly", "parse", "x", cron="0 3 * * *")
        credential, _ = await api_tokens.make_token(ledger.project, "ci")
        await access.grant(ledger.project, credential, ["submit"], actors=["ci"])
        await users.add(ledger.project, "ann", password="correct horse battery")  # noqa: S106  of this test
        await users.add(ledger.project, "bob", provider=("https://id.example", "7"))
        await views.save(ledger.project, "broken", "state:failed")
        await ledger.webhooks.add("https://example.com", events=["run.failed"], kinds=["parse"])
        await install(ledger.pool, EVENTS)
        await CatchUp(ledger.pool, EVENTS).to_the_end()


async def named(ledger: Ledger, url: str) -> list[str]:
    """What verify, opening and doctor name; an error of theirs names something as well."""
    try:
        report = await ledger.verify()
        if not report.ok:
            return [finding.detail for finding in report.findings]
        async with Ledger.open(url, PROJECT):
            pass
    except LedgerError as error:
        return [str(error)]
    async with opened(url, Settings.load(), checked=False) as database:
        status = await database_status(database)
        checks = [schema_checks.revision(status), await schema_checks.feed(database)]
        checks.append(await work_checks.schedules(database))
    return [check.detail for check in checks if check.level == Level.FAILED]


def tampering(column: Any) -> Iterator[str]:
    """Yield the statements that change one row: one that has a value, and one that has none."""
    table, name = column["table"], column["column"]
    value = TAMPERED[column["type"]].format(c=f"t.{name}")
    for having in ("NOT NULL", "NULL"):
        yield (
            f"UPDATE ledger.{table} AS t SET {name} = {value} WHERE (t.tableoid, t.ctid) = ("
            f"SELECT s.tableoid, s.ctid FROM ledger.{table} AS s WHERE s.{name} IS {having} "
            "ORDER BY s.tableoid, s.ctid LIMIT 1)"
        )


@pytest.mark.slow
async def test_what_a_superuser_changes_in_any_column_is_named(
    unverified_database: str, mallory: asyncpg.Connection, tmp_path: Path
) -> None:
    await worked(unverified_database, mallory, tmp_path)
    async with Ledger.open(unverified_database, PROJECT) as ledger:
        assert await named(ledger, unverified_database) == []
        await assert_every_column_is_watched(ledger, unverified_database, mallory)
        assert await named(ledger, unverified_database) == []


async def assert_every_column_is_watched(
    ledger: Ledger, url: str, mallory: asyncpg.Connection
) -> None:
    await mallory.execute(DEFENCELESS)
    unnoticed: set[str] = set()

    for table, columns in groupby(await mallory.fetch(COLUMNS), itemgetter("table")):
        if table in ALLOWED_TABLES:
            continue
        await mallory.execute(f"CREATE TEMP TABLE before AS SELECT * FROM ledger.{table}")
        for column in columns:
            changed = 0
            for statement in tampering(column):
                if await mallory.execute(statement) == "UPDATE 1":
                    changed += 1
                    if not await named(ledger, url):
                        unnoticed.add(f"{table}.{column['column']}")
                    await mallory.execute(f"DELETE FROM ledger.{table}")
                    await mallory.execute(f"INSERT INTO ledger.{table} SELECT * FROM before")
            assert changed, f"no row of {table} was changed"
        await mallory.execute("DROP TABLE before")

    assert unnoticed == set(ALLOWED_COLUMNS)
