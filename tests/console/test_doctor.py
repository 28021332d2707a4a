"""What doctor finds: each check fires, names what it found, and names the remedy."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator
from typing import Any

import pytest

from runfold import Context, Ledger, Run, State, handler
from runfold.console.cli.health.check import Level
from runfold.console.cli.health.database_status import DatabaseStatus
from runfold.console.cli.health.server_checks import connections_check, server
from runfold.console.cli.kit import exits
from runfold.console.cli.kit.unknown_settings import unknown_settings
from runfold.ledger import roles
from tests.support.console import Answer, Cli, cli, execute
from tests.support.databases import PROJECT
from tests.support.working import given_back, reached, working

__all__ = ["cli"]


@pytest.fixture
def damaged(unverified_database: str, capsys: pytest.CaptureFixture[str]) -> Cli:
    """The program on a database that the test damages."""
    return Cli(unverified_database, capsys)


@pytest.fixture
def login(database: str) -> Iterator[str]:
    """A login of its own, dropped at the end."""
    name = f"login_{os.urandom(4).hex()}"
    execute(database, f"CREATE ROLE {name} LOGIN")
    yield name
    execute(database, f"DROP ROLE {name}")


def check(answer: Answer, name: str) -> dict[str, Any]:
    """One check of a report."""
    (one,) = (one for one in answer.json["checks"] if one["name"] == name)
    return dict(one)


def status(version: str, *, supported: bool = True) -> DatabaseStatus:
    """A database on a server of this version."""
    return DatabaseStatus(version, supported, "1", "1", True, False, "1", (), 3, False)


@pytest.mark.parametrize(
    ("version", "level"),
    [
        ("15.17", Level.FAILED),
        ("15.18", Level.OK),
        ("16.13", Level.FAILED),
        ("17.9", Level.FAILED),
        ("17.10", Level.OK),
        ("18.3", Level.FAILED),
        ("18.4", Level.OK),
        ("19.0", Level.OK),
    ],
)
def test_a_server_without_the_security_fixes_is_unhealthy(version: str, level: Level) -> None:
    assert server(status(version)).level == level


@pytest.mark.parametrize(
    ("limit", "used", "free", "level"),
    [
        (11, 0, 90, Level.FAILED),
        (12, 0, 90, Level.OK),
        (20, 10, 90, Level.WARNING),
        (-1, 50, 90, Level.OK),
        (-1, 50, 11, Level.WARNING),
    ],
)
def test_the_connections_of_a_worker_process_are_compared_with_the_limits(
    limit: int, used: int, free: int, level: Level
) -> None:
    row = {
        "login": "w",
        "login_limit": limit,
        "login_used": used,
        "server_limit": 100,
        "server_used": 100 - free,
    }

    found = connections_check(row, 10, listen=True)

    assert found.level == level
    assert "a worker process takes up to 12 (pool 10, heartbeats 1, wake-ups 1)" in found.detail
    deaf = connections_check(row, 10, listen=False)
    assert "a worker process takes up to 11 (pool 10, heartbeats 1)" in deaf.detail


def test_a_login_with_too_few_connections_is_found(
    cli: Cli, database: str, login: str, capsys: pytest.CaptureFixture[str]
) -> None:
    execute(database, f"GRANT runfold_worker TO {login}")
    execute(database, f"ALTER ROLE {login} CONNECTION LIMIT 11")

    answer = Cli(database.replace("postgres@", f"{login}@"), capsys)("doctor", "--json")

    assert answer.code == exits.UNHEALTHY
    assert check(answer, "connections")["level"] == "failed"
    assert "RUNFOLD_POOL_SIZE" in check(answer, "connections")["detail"]


@pytest.mark.parametrize(
    ("role", "may"),
    [
        ("runfold_reader", "may read only"),
        ("runfold_worker", "may read and work"),
        ("runfold_projector", "keep projections"),
    ],
)
def test_what_a_login_may_do_is_named(
    database: str, login: str, capsys: pytest.CaptureFixture[str], role: str, may: str
) -> None:
    execute(database, f"GRANT {role} TO {login}")

    answer = Cli(database.replace("postgres@", f"{login}@"), capsys)("doctor", "--json")

    assert check(answer, "privileges")["detail"].endswith(may)


def test_a_session_that_only_reads_checks_and_is_told_so(
    database: str, cli: Cli, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.submitted()
    only_reads = Cli(f"{database}&options=-c%20default_transaction_read_only%3Don", capsys)

    assert only_reads("doctor", "--json").code == exits.OK
    checked = only_reads.ok("verify")
    assert (checked.out, "not on record" in checked.err) == (
        "ok: 1 run, 1 event, 0 payloads, 0 erased\n",
        True,
    )
    refused = only_reads("submit", "parse")
    assert refused.code == exits.ERROR
    assert "default_transaction_read_only is on: give the URL of the primary" in refused.err


def test_a_clock_that_was_set_back_is_found(damaged: Cli) -> None:
    damaged.submitted()
    execute(damaged.url, "ALTER TABLE ledger.event DISABLE TRIGGER ALL")
    execute(damaged.url, "UPDATE ledger.event SET recorded_at = recorded_at + interval '1 hour'")

    answer = damaged("doctor", "--json")

    assert answer.code == exits.UNHEALTHY
    assert "set back and no reaper has noticed" in check(answer, "time")["detail"]

    damaged.ok("reap", "--once")
    answer = damaged("doctor", "--json")

    time = check(answer, "time")
    assert time["level"] == "warning"
    assert re.search(r"ledger's time is 3,(59|60)\d", time["detail"])
    assert "in 10.0 h at most" in time["detail"]


def test_a_sequence_behind_its_events_is_found(damaged: Cli) -> None:
    damaged.submitted()
    damaged.submitted()
    execute(damaged.url, "SELECT setval('ledger.event_position', 1, false)")

    answer = damaged("doctor", "--json")

    assert answer.code == exits.UNHEALTHY
    assert "runfold projections rebase" in check(answer, "feed")["detail"]


def test_what_is_not_as_this_program_installs_it_and_every_hole_have_a_line(damaged: Cli) -> None:
    healthy = damaged("doctor", "--json")
    assert check(healthy, "objects")["level"] == "ok"
    assert not [one for one in healthy.json["checks"] if one["level"] == "failed"]
    execute(damaged.url, "GRANT INSERT ON ledger.event TO runfold_worker")
    [month] = execute(damaged.url, "SELECT to_char(now(), '\"event_\"YYYY_MM')")
    execute(damaged.url, f"ALTER TABLE ledger.{month[0]} DISABLE ROW LEVEL SECURITY")
    execute(damaged.url, f"CREATE POLICY planted ON ledger.{month[0]} USING (true)")

    answer = damaged("doctor", "--json")

    assert answer.code == exits.UNHEALTHY
    assert "runfold_worker has INSERT on event: REVOKE" in check(answer, "objects")["detail"]
    failed = [
        one["detail"]
        for one in answer.json["checks"]
        if (one["name"], one["level"]) == ("access", "failed")
    ]
    assert failed == [
        (
            f"policy planted lets logins into ledger.{month[0]} by itself: "
            f"DROP POLICY planted ON ledger.{month[0]}"
        ),
        (
            f"row security of ledger.{month[0]} is off: "
            f"ALTER TABLE ledger.{month[0]} ENABLE ROW LEVEL SECURITY"
        ),
    ]


def test_a_schedule_that_nobody_keeps_is_found(cli: Cli) -> None:
    cli.ok("schedules", "add", "nightly", "report", "--cron", "0 3 * * *", "--ahead")
    execute(cli.url, "UPDATE ledger.schedule SET next_at = now() - interval '10 min'")

    answer = cli("doctor", "--json")

    assert answer.code == exits.UNHEALTHY
    assert re.search(r"nightly in project test, 60\d s late", check(answer, "schedules")["detail"])


def test_a_schedule_whose_handler_is_gone_is_named_as_paused(cli: Cli) -> None:
    cli.ok("schedules", "add", "nightly", "report", "--cron", "0 3 * * *", "--ahead")
    execute(
        cli.url,
        "UPDATE ledger.schedule SET next_at = now() - interval '10 min', release = now()",
    )

    answer = cli("doctor", "--json")

    assert answer.code == exits.OK
    assert re.fullmatch(
        r"1 paused, no running worker has their handler: nightly in project test, 60\d s late: "
        r"start a worker that has it, or `runfold schedules remove NAME`",
        check(answer, "schedules")["detail"],
    )


def test_a_schedule_whose_runs_nobody_takes_is_found(cli: Cli) -> None:
    cli.ok("schedules", "add", "nightly", "report", "--cron", "0 3 * * *", "--ahead")
    cli.submitted("report")
    execute(cli.url, "UPDATE ledger.schedule SET last_due = now() - interval '10 min'")
    execute(cli.url, "UPDATE ledger.run_state SET available_at = available_at - interval '1 hour'")

    answer = cli("doctor", "--json")

    execute(cli.url, "UPDATE ledger.run_state SET available_at = available_at + interval '1 hour'")
    assert answer.code == exits.OK
    found = check(answer, "schedules")
    assert (found["level"], "nightly of kind report" in found["detail"]) == ("warning", True)


@handler("order", version="1")
async def first_version(ctx: Context) -> None:
    await ctx.step("begin", lambda: None)
    await ctx.approval("Pay?", role="finance")


@handler("order", version="2")
async def second_version(_: Context) -> None:
    raise AssertionError("it is not called")


def test_a_run_that_waits_for_a_version_of_its_handler_and_a_role_that_nobody_has_are_named(
    cli: Cli,
) -> None:
    async def waiting_for_a_role() -> Run:
        async with Ledger.open(cli.url, PROJECT) as ledger, working(ledger, first_version):
            run = await ledger.submit("order")
            return await reached(ledger, run, State.WAITING_APPROVAL)

    async def waiting_for_a_version(run: Run) -> None:
        async with Ledger.open(cli.url, PROJECT) as ledger:
            await roles.grant(ledger.project, "finance", "ann", actor="root", reason="head")
            await ledger.approve(run, actor="ann")
            async with working(ledger, second_version):
                await given_back(ledger, run)

    run = asyncio.run(waiting_for_a_role())
    approvals = check(cli("doctor", "--json"), "approvals")
    asyncio.run(waiting_for_a_version(run))
    handlers = check(cli("doctor", "--json"), "handlers")

    assert (approvals["level"], handlers["level"]) == ("warning", "warning")
    assert "1 for role finance in project test: `runfold roles grant" in approvals["detail"]
    assert f"1 of kind order in project test, such as {run.run_id}" in handlers["detail"]
    assert "version '1' where the handler has version '2'" in handlers["detail"]


def test_a_role_with_fewer_members_than_must_approve_is_named(cli: Cli) -> None:
    async def asked(members: tuple[str, ...]) -> None:
        async with Ledger.open(cli.url, PROJECT) as ledger:
            for name in members:
                await ledger.grant_role("finance", name)
            if len(members) == 1:
                await ledger.submit("order")
                [lease] = await ledger.claim("w:1")
                await ledger.ask_approval(lease, "Pay?", role="finance", approvals=2)

    asyncio.run(asked(("ann",)))
    too_few = check(cli("doctor", "--json"), "approvals")
    asyncio.run(asked(("ann", "bob")))

    assert "1 for role finance in project test, which 1 of 2 has" in too_few["detail"]
    assert check(cli("doctor", "--json"), "approvals")["level"] == "ok"


def test_a_misspelled_setting_is_named_with_what_was_meant(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNFOLD_LEASE_TTL", "30")

    answer = cli("doctor", "--json")
    said = cli.ok("runs").err

    expected = "RUNFOLD_LEASE_TTL is not a setting: did you mean RUNFOLD_LEASE_TTL_SECONDS?"
    assert answer.code == exits.UNHEALTHY
    assert check(answer, "settings")["detail"] == expected
    assert f"warning: {expected}" in said
    assert unknown_settings({"RUNFOLD_TEST_URL": "", "RUNFOLD_POOL_SIZE": "3", "PATH": ""}) == []


def test_a_database_that_cannot_hold_every_text_is_found(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    from runfold.console.cli.health import server_checks

    async def latin(*_: object) -> list[dict[str, str]]:
        return [{"encoding": "LATIN1"}]

    monkeypatch.setattr(server_checks, "fetch", latin)
    monkeypatch.setattr("runfold.console.cli.commands.doctor.clock", _well)
    monkeypatch.setattr("runfold.console.cli.commands.doctor.clock_steps", _well)
    monkeypatch.setattr("runfold.console.cli.commands.doctor.connections", _well)

    answer = cli("doctor", "--json")

    assert answer.code == exits.UNHEALTHY
    assert "LATIN1" in check(answer, "encoding")["detail"]


async def _well(*_: object, **__: object) -> Any:
    from runfold.console.cli.health.check import Check

    return Check("other", Level.OK, "")
