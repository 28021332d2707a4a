"""Verify checks the control history, and the tables that are folds of it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from runfold.ledger import Ledger, access, api_tokens
from runfold.ledger.errors import DatabaseRefused
from runfold.ledger.postgres import schema
from runfold.ledger.postgres.connections import Pool
from runfold.ledger.postgres.urls import driver_url
from runfold.ledger.proof.control import control_hash
from runfold.ledger.reading import control_checks
from runfold.ledger.reading.control_checks import UNCHECKED, check_control
from runfold.ledger.reading.control_tables import CONTROL_TABLES
from runfold.ledger.reading.snapshot import snapshot
from runfold.ledger.reading.verify import verify
from tests.support.damage import keep, undone
from tests.support.databases import PROJECT
from tests.support.logins import with_login
from tests.support.snapshots import held_snapshots


@pytest.fixture
async def mallory(unverified_database: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A superuser's connection to a database whose control tables have something in them."""
    async with Ledger.open(unverified_database, PROJECT) as ledger:
        await ledger.submit("parse")
        await ledger.pause_kind("parse", actor="ann")
        await ledger.grant_role("finance", "ann")
        await ledger.schedule("nightly", "parse", cron="0 3 * * *")
        await access.grant(ledger.project, "w_login", ["work"])
        await api_tokens.make_token(ledger.project, "ci")
        await ledger.webhooks.add("https://example.com/told")
    connection = await asyncpg.connect(driver_url(unverified_database))
    yield connection
    await connection.close()


TAMPERS = (
    ("DELETE FROM ledger.control_event WHERE project_id = 'test'", "list test was begun, and has"),
    ("DELETE FROM ledger.control_event WHERE subject = 'list:test'", "list test was never begun"),
    ("DELETE FROM ledger.control_event WHERE number = 3", "event 4 follows event 2"),
    ("UPDATE ledger.control_event SET actor = 'bob' WHERE number = 3", "the hash of event 3"),
    ("UPDATE ledger.control_event SET credential = 'x' WHERE number = 3", "the hash of event 3"),
    ("UPDATE ledger.access_grant SET rights = '{admin}'", "access_grant has access:test:w_login"),
    (
        (
            "DELETE FROM ledger.control_event WHERE (project_id, number) IN "
            "(SELECT project_id, max(number) FROM ledger.control_event GROUP BY project_id)"
        ),
        "by its head it ends with event",
    ),
    ("UPDATE ledger.control_head SET hash = '\\x00'", "by its head it ends with event"),
    ("DELETE FROM ledger.control_head", "by its head it ends with no event"),
    ("INSERT INTO ledger.control_head VALUES ('m', 1, '')", "list m ends with no event"),
    ("DELETE FROM ledger.access_grant", "access_grant lacks access:test:w_login"),
    (
        "INSERT INTO ledger.access_grant VALUES ('m', '*', '{admin}', '{*}', NULL, 'm', NULL)",
        "access_grant has access:*:m, which nobody ordered",
    ),
    ("UPDATE ledger.api_token SET revoked_at = NULL, name = 'x'", "api_token has token:"),
    ("DELETE FROM ledger.role_event", "role_event lacks role:test:1"),
    ("UPDATE ledger.role_event SET recorded_at = '2020-01-01Z'", "role_event has role:test:1"),
    ("UPDATE ledger.schedule SET kind = 'mine'", "schedule has schedule:test:nightly"),
    ("UPDATE ledger.webhook SET url = 'https://evil.example'", "webhook has webhook:wh_"),
    ("UPDATE ledger.project SET created_at = '2020-01-01Z'", "project has project:test"),
    ("UPDATE ledger.feed_generation SET start = '9:9:@0'", "feed_generation has generation:1"),
)


TABLES = ("control_event", "control_head", *(table.name for table in CONTROL_TABLES))


@pytest.mark.slow
async def test_what_was_changed_behind_the_history_is_named(
    unverified_database: str,
    mallory: asyncpg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
    subtests: pytest.Subtests,
) -> None:
    monkeypatch.setattr(control_checks, "_PAGE", 1)
    await _disabled(mallory)
    await keep(mallory, TABLES)
    async with asyncpg.create_pool(driver_url(unverified_database), min_size=1, max_size=1) as pool:
        for tamper, problem in TAMPERS:
            with subtests.test(tamper):
                async with undone(mallory, TABLES):
                    await mallory.execute(tamper)
                    report = await verify(pool, PROJECT)
                assert any(
                    found.problem == "control" and problem in found.detail
                    for found in report.findings
                ), report.findings
        assert (await verify(pool, PROJECT)).ok


MORE_TAMPERS = {
    "UPDATE ledger.control_event SET project_id = 'zz', number = 1 WHERE subject = 'list:test'": (
        "list test was never begun"
    ),
    "DELETE FROM ledger.control_event WHERE project_id = '*'": "list * was begun, and has no event",
    "INSERT INTO ledger.control_head VALUES ('zz', 1, '')": "list zz ends with no event",
    (
        "INSERT INTO ledger.access_grant SELECT name, 'zz', '{read}', '{*}', NULL, 'm', NULL"
        " FROM unnest('{x,y,z}'::text[]) AS name"
    ): "access_grant has access:zz:z, which nobody ordered",
    "INSERT INTO ledger.schedule SELECT (was).* FROM dropped": (
        "schedule has schedule:test:once, which nobody ordered"
    ),
    (
        "UPDATE ledger.control_event SET subject = 'role:test:' || repeat('9', 30)"
        " WHERE subject = 'role:test:1'"
    ): "role_event lacks role:test:999",
    "UPDATE ledger.control_event SET subject = 'role:test:01' WHERE subject = 'role:test:1'": (
        "role_event lacks role:test:01"
    ),
}


async def test_a_lost_event_is_named_though_a_later_one_has_its_number(
    unverified_database: str, mallory: asyncpg.Connection[Any]
) -> None:
    for table in ("role_event", "kind_event"):
        await mallory.execute(
            f"ALTER TABLE ledger.{table} DISABLE TRIGGER USER; DELETE FROM ledger.{table};"
            f"ALTER TABLE ledger.{table} ENABLE ALWAYS TRIGGER record_control"
        )
    async with Ledger.open(unverified_database, PROJECT) as ledger:
        await ledger.grant_role("finance", "bob")
        await ledger.limit_kind("parse", 3)
        findings = [found.detail for found in (await ledger.verify()).findings]

    for subject in ("role_event has role:test:1 as", "kind_event has kind:test:parse:1 as"):
        assert any(detail.startswith(subject) for detail in findings), findings


async def test_an_event_that_does_not_follow_the_damaged_ones_of_its_kind_is_refused_with_a_remedy(
    unverified_database: str, mallory: asyncpg.Connection[Any]
) -> None:
    await mallory.execute("ALTER TABLE ledger.kind_event DISABLE TRIGGER refuse_change")
    await mallory.execute("DELETE FROM ledger.kind_event")
    async with Ledger.open(unverified_database, PROJECT) as ledger:
        with pytest.raises(DatabaseRefused, match="`runfold verify` names the damage"):
            await ledger.limit_kind("parse", 3)


async def test_each_list_each_page_and_each_subject_is_looked_at_whatever_the_session_has_set(
    unverified_database: str,
    mallory: asyncpg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
    subtests: pytest.Subtests,
) -> None:
    async with Ledger.open(unverified_database, PROJECT) as ledger:
        await ledger.schedule("once", "parse", cron="0 3 * * *")
        await mallory.execute(
            "CREATE TABLE dropped AS SELECT was FROM ledger.schedule AS was WHERE name = 'once'"
        )
        await ledger.unschedule("once")
    monkeypatch.setattr(control_checks, "_PAGE", 1)
    await _disabled(mallory)
    await keep(mallory, TABLES)
    elsewhere = {"timezone": "Asia/Tokyo", "bytea_output": "escape"}
    async with asyncpg.create_pool(
        driver_url(unverified_database), min_size=1, max_size=1, server_settings=elsewhere
    ) as pool:
        assert await check_control(pool) == []
        for tamper, problem in MORE_TAMPERS.items():
            with subtests.test(problem):
                async with undone(mallory, TABLES):
                    await mallory.execute(tamper)
                    details = [finding.detail for finding in await check_control(pool) or ()]
                assert any(problem in detail for detail in details), details
                assert len({*details}) == len(details)


async def test_what_is_ordered_between_two_pages_neither_alarms_nor_hides(
    unverified_database: str, mallory: asyncpg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[int] = []
    changes = [*range(1, 9)]
    async with Ledger.open(unverified_database, PROJECT) as ledger:

        @asynccontextmanager
        async def after_changes(pool: Pool) -> AsyncIterator[Any]:
            held.append(await held_snapshots(mallory))
            if changes:
                number = changes.pop(0)
                await ledger.grant_role("finance", f"member-{number}")
                await ledger.schedule(f"{number}", "parse", cron="0 3 * * *")
                await ledger.unschedule(f"{number // 2}")
                for project in (f"a{number}", f"z{number}"):  # before the page, and after it
                    await mallory.execute("INSERT INTO ledger.project VALUES ($1)", project)
            async with snapshot(pool) as connection:
                yield connection

        monkeypatch.setattr(control_checks, "_PAGE", 4)
        monkeypatch.setattr(control_checks, "snapshot", after_changes)
        assert await check_control(ledger.pool) == []
        assert len(held) > 6  # pages
        assert set(held) == {0}

        changes += range(9, 17)
        await _disabled(mallory)
        await mallory.execute("UPDATE ledger.control_event SET actor = 'eve' WHERE number = 2")
        await mallory.execute("DELETE FROM ledger.role_event WHERE number = 1")
        await mallory.execute(
            "INSERT INTO ledger.kind_event SELECT project_id, 'zzz', number, "
            "recorded_at, actor, type, max_running, reason FROM ledger.kind_event"
        )
        for table in ("role_event", "schedule", "project"):
            await mallory.execute(f"ALTER TABLE ledger.{table} ENABLE TRIGGER record_control")
        details = [finding.detail for finding in await check_control(ledger.pool) or ()]

    assert sum("the hash of event 2 " in each for each in details) == 2
    assert sum("role_event lacks role:test:1," in each for each in details) == 1
    assert sum("kind:test:zzz:1, which nobody ordered" in each for each in details) == 1
    assert len(details) == 4, details


async def test_no_page_of_the_check_reads_all_of_the_history(
    mallory: asyncpg.Connection[Any], subtests: pytest.Subtests
) -> None:
    await _disabled(mallory)
    await mallory.execute(
        "INSERT INTO ledger.control_event SELECT 'test', 1000 + n, now(), 'x', 'role.granted', "
        "'role:test:' || n, '{}', 'x', NULL, '' FROM generate_series(1, 3000) AS n"
    )
    await mallory.execute("ANALYZE ledger.control_event")
    starts = [table.start for table in CONTROL_TABLES]
    for name, query, after in (
        ("events", control_checks.EVENTS, ["test", 2000]),
        ("rows", control_checks.ROWS, starts),
        ("heads", control_checks.HEADS, [""]),
    ):
        with subtests.test(name):
            plan = await mallory.fetch(f"EXPLAIN {query}", 100, *after)
            lines = "\n".join(line for (line,) in plan)
            assert "control_event_" in lines
            assert "Seq Scan on control_event" not in lines, lines


async def test_a_list_that_was_cut_at_its_end_keeps_the_gap_however_it_goes_on(
    unverified_database: str, mallory: asyncpg.Connection[Any]
) -> None:
    await mallory.execute("ALTER TABLE ledger.control_event DISABLE TRIGGER refuse_change")
    await mallory.execute(
        "DELETE FROM ledger.control_event AS e WHERE e.project_id = 'test' AND e.number = "
        "(SELECT h.number FROM ledger.control_head AS h WHERE h.project_id = 'test')"
    )

    async with Ledger.open(unverified_database, PROJECT) as ledger:
        await ledger.grant_role("finance", "bob")
        report = await ledger.verify()

    details = [found.detail for found in report.findings]
    assert any(
        re.fullmatch(r"event (\d+) follows event (\d+) of list test", one) for one in details
    ), details


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE ledger.control_head SET number = number - 1",
        "UPDATE ledger.control_head SET hash = sha256('')",
        "INSERT INTO ledger.control_head VALUES ('other', 1, '')",
        "DELETE FROM ledger.control_head",
        "TRUNCATE ledger.control_head",
    ],
)
async def test_not_even_the_owner_moves_the_head_of_a_list(
    mallory: asyncpg.Connection[Any], change: str
) -> None:
    with pytest.raises(asyncpg.PostgresError, match="append-only"):
        await mallory.execute(change)


async def _disabled(connection: asyncpg.Connection[Any]) -> None:
    for table in TABLES:
        await connection.execute(f"ALTER TABLE ledger.{table} DISABLE TRIGGER ALL")


async def test_the_hash_of_python_is_that_of_sql(mallory: asyncpg.Connection[Any]) -> None:
    previous = b""
    for event in await mallory.fetch(
        "SELECT * FROM ledger.control_event WHERE project_id = 'test' ORDER BY number"
    ):
        assert control_hash(previous, event) == event["hash"]
        previous = event["hash"]
    assert previous


async def test_the_history_is_of_the_tables_that_have_the_trigger() -> None:
    found = re.findall(
        r"ON ledger\.(\w+)\s+FOR EACH ROW[^;]*?EXECUTE FUNCTION ledger\.record_control\("
        r"'(\w+)',\s*'([\w ]*)',\s*'([\w ]*)'\)",
        schema.sql("guards/triggers"),
    )

    assert {
        (name, noun, tuple(keys.split()), tuple(moving.split()))
        for name, noun, keys, moving in found
    } == {(one.name, one.noun, one.keys, one.moving) for one in CONTROL_TABLES}


async def test_a_session_that_may_not_read_the_history_says_that_it_was_not_checked(
    database: str,
) -> None:
    async with (
        with_login(database, "runfold_auditor", rights=("audit", "read")) as url,
        Ledger.open(url, PROJECT) as auditor,
    ):
        report = await auditor.verify()

    assert report.ok
    assert report.unchecked == (UNCHECKED,)


async def test_an_auditor_of_all_projects_checks_the_history(database: str) -> None:
    async with (
        with_login(database, "runfold_auditor", rights=("audit",), project="*") as url,
        Ledger.open(url, PROJECT) as auditor,
    ):
        report = await auditor.verify()

    assert (report.findings, report.unchecked) == ((), ())
