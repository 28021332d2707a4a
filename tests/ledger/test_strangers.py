"""Whatever has a project, by the catalog: a login of another project finds nothing of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any, Final
from uuid import UUID

import asyncpg
import pytest

from runfold.ledger import Ledger, State, Submit
from runfold.ledger.errors import DatabaseUnavailable
from runfold.ledger.postgres.server_roles import ROLES
from runfold.ledger.postgres.urls import driver_url
from tests.ledger.test_access import calls
from tests.support.databases import PROJECT
from tests.support.logins import with_login

OTHER: Final = "other"
EVERY_RIGHT: Final = ("submit", "work", "read", "decide", "schedule", "audit", "admin", "erase")
RELATIONS: Final = """
SELECT c.oid::regclass::text AS name, c.relkind::text AS kind, c.relrowsecurity AS secured,
  coalesce(c.reloptions::text, '') LIKE '%security_invoker=true%' AS invoked
FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid
WHERE c.relnamespace IN ('ledger'::regnamespace, 'projection'::regnamespace)
  AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND a.attname = 'project_id' AND NOT a.attisdropped
ORDER BY 1
"""
NOT_YOURS: Final = {"RF404", "42501"}


@pytest.fixture
async def theirs(database: str) -> AsyncIterator[Ledger]:
    """A project of others with rows in every table that commands write."""
    async with Ledger.open(database, OTHER, create_project=True) as opened:
        await opened.submit("parse", {"secret": 1}, key="k")
        await opened.pause_kind("parse", actor="ann")
        await opened.limit_kind("parse", 3, actor="ann")
        await opened.grant_role("finance", "ann")
        await opened.schedule("nightly", "parse", cron="0 3 * * *")
        await opened.grant_access("somebody", ["read"])
        await opened.pool.execute(
            "SELECT ledger.make_projection_table('theirs_v1', '{project_id,reads}', '{text,int}',"
            " '{}', '{project_id}')"
        )
        await opened.pool.execute("INSERT INTO projection.theirs_v1 VALUES ('other', 1)")
        yield opened


@pytest.fixture
async def stranger(database: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A login with every right in project `test` and every role but that which keeps projections.

    Whoever keeps the tables of projections keeps them for all projects.
    """
    roles = [role for role in ROLES if role != "runfold_projector"]
    async with with_login(database, *roles, rights=EVERY_RIGHT) as url:
        opened = await asyncpg.connect(driver_url(url))
        yield opened
        await opened.close()


async def test_every_relation_with_a_project_shows_a_stranger_nothing_of_it(
    theirs: Ledger, ledger: Ledger, stranger: asyncpg.Connection[Any], subtests: pytest.Subtests
) -> None:
    await ledger.submit("parse", {"mine": 1}, key="k")
    relations = await theirs.pool.fetch(RELATIONS)
    filled = 0
    for relation in relations:
        name = relation["name"]
        counted = f"SELECT count(*) FROM {name}"
        of_others = f"{counted} WHERE project_id = '{OTHER}'"
        filled += await theirs.pool.fetchval(of_others) > 0
        with subtests.test(name):
            assert relation["invoked" if relation["kind"] == "v" else "secured"]
            try:
                seen = await stranger.fetchval(of_others)
                every = await stranger.fetchval(counted)
            except asyncpg.InsufficientPrivilegeError:
                continue  # a month's own table, or one that only functions read
            assert seen == 0
            beside = f"{counted} WHERE project_id IS DISTINCT FROM '{OTHER}'"
            assert every <= await theirs.pool.fetchval(beside)
            for attempt in (
                f"SELECT FROM {name} FOR KEY SHARE",
                f"LOCK TABLE {name} IN SHARE MODE",
                f"LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE",
            ):
                with pytest.raises(asyncpg.PostgresError) as refused:
                    async with stranger.transaction():
                        await stranger.execute(attempt)
                assert refused.value.sqlstate == "42501", attempt
    assert (len(relations) > 20, filled > 12) == (True, True)


# What a stranger may guess of others, each compared with a guess that nothing of theirs meets.
GUESSES: Final = (
    *(
        (f"ledger.{name}", "project_id = 'other'", "project_id = 'nowhere'")
        for name in (
            "project", "event", "run_state", "payload", "command", "kind", "kind_state",
            "kind_event", "schedule", "role_event", "run", "entry",
        )
    ),
    ("projection.theirs_v1", "project_id = 'other'", "project_id = 'nowhere'"),
    ("ledger.command", "key = 'theirs'", "key = 'nobodys'"),
    ("ledger.kind", "kind = 'parse'", "kind = 'nothing'"),
    ("ledger.schedule", "name = 'nightly'", "name = 'never'"),
    ("ledger.run_state", "run_id = '{run}'", "run_id = '{unknown}'"),
    ("ledger.event", "run_id = '{run}'", "run_id = '{unknown}'"),
)  # fmt: skip
COUNTED: Final = {"Actual Rows", "Actual Loops", "Rows Removed by Filter", "Heap Fetches"}


def counted(plan: Any) -> list[tuple[str, Any]]:
    """All that a plan says to have met, in order."""
    if isinstance(plan, list):
        return [found for part in plan for found in counted(part)]
    if not isinstance(plan, dict):
        return []
    own = [(name, value) for name, value in plan.items() if name in COUNTED and value]
    return own + [found for part in plan.values() for found in counted(part)]


@pytest.mark.new_database
async def test_no_plan_tells_a_stranger_what_was_found_by_an_index(
    theirs: Ledger, stranger: asyncpg.Connection[Any], subtests: pytest.Subtests
) -> None:
    """EXPLAIN ANALYZE counts the rows that a policy keeps from a login: it must meet none."""
    await theirs.submit("parse", key="theirs")
    run_id = (await theirs.runs())[0].run_id
    names = {"run": run_id, "unknown": UUID(int=run_id.int ^ 1)}  # of the same month
    await stranger.execute("SET enable_seqscan = off")
    for relation, hit, miss in GUESSES:
        with subtests.test(f"{relation} {hit}"):
            seen = []
            for guess in (hit, miss):
                plan = await stranger.fetchval(
                    f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) SELECT FROM {relation} "
                    f"WHERE {guess.format(**names)}"
                )
                seen.append(counted(json.loads(plan)))
            assert seen[0] == seen[1]


# What lists of runs are planned by.
SAMPLED: Final = {"project_id", "kind", "state", "type", "tag", "tags", "worker_id"}
WORDS: Final = """
SELECT a.attrelid::regclass::text AS relation, a.attname::text AS name, a.attstattarget AS target
FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
WHERE c.relnamespace = 'ledger'::regnamespace AND c.relkind IN ('r', 'p') AND c.relrowsecurity
  AND a.atttypid IN ('text'::regtype, 'varchar'::regtype) AND a.attnum > 0
"""


@pytest.mark.new_database
async def test_no_estimate_tells_a_stranger_the_keys_names_and_actors_of_others(
    theirs: Ledger, stranger: asyncpg.Connection[Any]
) -> None:
    """By halves the server's samples could be read from the estimates, letter by letter."""
    await theirs.submit_many([Submit(kind="parse", key=f"order-{n}") for n in range(200)])
    await theirs.pool.execute("SELECT ledger.make_partitions(5)")
    await theirs.pool.execute("ANALYZE")

    estimates = {
        json.loads(
            await stranger.fetchval(
                f"EXPLAIN (FORMAT JSON) SELECT FROM ledger.command WHERE key < '{bound}'"
            )
        )[0]["Plan"]["Plan Rows"]
        for bound in ("a", "order-5", "order-9", "z")
    }

    assert len(estimates) == 1
    words = [row for row in await theirs.pool.fetch(WORDS) if row["name"] not in SAMPLED]
    assert len(words) > 50
    assert [(row["relation"], row["name"]) for row in words if row["target"] != 0] == []


COUNTERS: Final = """
SELECT c.relname || '.' || a.attname AS name FROM pg_class AS c
JOIN pg_attribute AS a ON a.attrelid = c.oid
LEFT JOIN pg_attrdef AS d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE c.relnamespace = 'ledger'::regnamespace AND c.relrowsecurity AND NOT c.relispartition
  AND EXISTS (SELECT FROM pg_attribute AS p WHERE p.attrelid = c.oid AND p.attname = 'project_id')
  AND (a.attidentity <> '' OR pg_get_expr(d.adbin, d.adrelid) ~ 'nextval|xact')
ORDER BY 1
"""


async def test_no_number_of_a_row_counts_the_rows_of_others(
    theirs: Ledger, ledger: Ledger, stranger: asyncpg.Connection[Any]
) -> None:
    """But for those that docs/howto/access.md names; rebuilds are seen by whoever sees all."""
    for member in ("ann", "bob"):
        await theirs.grant_role("finance", member)
        await ledger.grant_role("finance", member)
    held = ((theirs, "theirs"), (ledger, "ours"), (theirs, "over"), (ledger, "ours, longer"))
    for project, reason in held:
        run = await project.submit("parse")
        await project.archive.hold((project.project_id, run.run_id), reason=reason)
    await ledger.archive.hold("2026-01", reason="of all")

    for table in ("role_event", "archive_event"):
        rows = await stranger.fetch(f"SELECT * FROM ledger.{table} ORDER BY number")
        assert [(row["project_id"], row["number"]) for row in rows] == [(PROJECT, 1), (PROJECT, 2)]
    records = await theirs.archive.history()
    assert [(row["project_id"], row["number"]) for row in records] == [
        (OTHER, 1), (PROJECT, 1), (OTHER, 2), (PROJECT, 2), ("*", 1),
    ]  # fmt: skip
    counters = [row["name"] for row in await theirs.pool.fetch(COUNTERS)]
    assert counters == [
        "event.position", "event.txid", "rebuild.rebuild_id",
    ]  # fmt: skip


async def test_no_wait_for_a_lock_tells_a_stranger_what_others_have(
    theirs: Ledger,
    connection: asyncpg.Connection[Any],
    stranger: asyncpg.Connection[Any],
    subtests: pytest.Subtests,
) -> None:
    """While an open transaction of others holds a run, a new key and kind, and a limited kind."""
    run = (await theirs.runs())[0]
    submit = (
        "SELECT run_id FROM ledger.submit($1, 'm', '{new,parse}', NULL, '{fresh,k2}', '{0,0}',"
        " NULL, '{1,1}', NULL, NULL, NULL)"
    )
    await stranger.execute("SET lock_timeout = '200ms'")
    async with connection.transaction():
        await connection.fetch(submit, OTHER)
        for table in ("run_state", "kind", "kind_state", "command", "schedule", "access_grant"):
            await connection.fetch(
                f"SELECT FROM ledger.{table} WHERE project_id = $1 FOR UPDATE", OTHER
            )

        async with Ledger.open(theirs.url, OTHER) as another:
            await another.pool.execute("SET lock_timeout = '200ms'")
            # So that there is a lock that errors could tell of.
            with pytest.raises(DatabaseUnavailable, match="lock timeout"):
                await another.submit("new", key="fresh")
        for name, (statement, arguments) in (await calls(run.run_id, OTHER)).items():
            with subtests.test(f"{name} there"):
                with pytest.raises(asyncpg.PostgresError) as refused:
                    await stranger.fetch(statement, *arguments)
                assert refused.value.sqlstate in NOT_YOURS
        with subtests.test("the same keys and kinds in one's own project"):
            assert len(await stranger.fetch(submit, PROJECT)) == 2
            claimed = await stranger.fetch(
                "SELECT * FROM ledger.claim($1, 'm', '{parse,new}', 5, '1 min')", PROJECT
            )
            assert len(claimed) == 2
    async with Ledger.open(theirs.url, PROJECT) as own:
        assert {one.state for one in await own.runs()} == {State.RUNNING}
