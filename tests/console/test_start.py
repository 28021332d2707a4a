"""What long-running commands say when they start: a hole in access is one line of the log."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

import pytest

from runfold.console.cli.commands import projections, worker
from runfold.console.cli.kit import exits
from runfold.console.web import serving
from runfold.ledger.postgres.compatibility import FIXED_MINORS
from runfold.workers.duties.reaper import Reaper
from tests.support.console import Cli, execute
from tests.support.logins import login_of, with_login

COMMANDS: Final = (
    ("worker", "tests.support.handlers"),
    ("reap",),
    ("serve", "--port", "0"),
    ("projections", "run"),
)
LINE: Final = "access_holes"


@pytest.fixture
def brief(
    unverified_database: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Cli:
    """The program, whose duties end as soon as they have begun."""

    async def opened(opening: Callable[[], AbstractAsyncContextManager[Any]], *_: Any) -> bool:
        async with opening():
            return True

    async def ended(*_: Any) -> None:
        pass

    class Never:
        def within(self, *_: Any) -> None:
            pass

    monkeypatch.setattr(worker, "serve", opened)
    monkeypatch.setattr(worker, "LastResort", Never)
    monkeypatch.setattr(Reaper, "run", ended)
    monkeypatch.setattr(serving.Server, "serve", ended)
    monkeypatch.setattr(projections, "_together", ended)
    return Cli(unverified_database, capsys)


def test_every_duty_says_at_its_start_that_a_hole_is_open(
    brief: Cli, subtests: pytest.Subtests
) -> None:
    for words in COMMANDS:
        with subtests.test(" ".join(words)):
            assert LINE not in brief.ok(*words).err
    execute(brief.url, "ALTER TABLE ledger.run_state DISABLE ROW LEVEL SECURITY")
    execute(brief.url, "ALTER TABLE ledger.payload ENABLE REPLICA TRIGGER refuse_change")
    for words in COMMANDS:
        with subtests.test(" ".join((*words, "with holes"))):
            [line] = [one for one in brief.ok(*words).err.splitlines() if LINE in one]
            assert "run `runfold doctor`" in line
            assert "row security of ledger.run_state is off" in line
            assert "holes=2" in line


MADE: Final = (
    (
        "ALTER TABLE ledger.run_state DISABLE ROW LEVEL SECURITY",
        "ALTER TABLE ledger.run_state ENABLE ROW LEVEL SECURITY",
        "row security of ledger.run_state is off",
        "row security of run_state is off",
    ),
    (
        "CREATE POLICY wide ON ledger.payload USING (true)",
        "DROP POLICY wide ON ledger.payload",
        "policy wide of ledger.payload is changed, or not the ledger's",
        "policy wide of payload is not this program's",
    ),
    (
        "ALTER POLICY seen ON ledger.kind RENAME TO viewed",
        "ALTER POLICY viewed ON ledger.kind RENAME TO seen",
        "",
        "policy seen of kind is missing or changed",
    ),
    (
        "ALTER TABLE ledger.{month} DISABLE TRIGGER refuse_truncate",
        "ALTER TABLE ledger.{month} ENABLE ALWAYS TRIGGER refuse_truncate",
        "trigger refuse_truncate of ledger.{month} is missing",
        "trigger refuse_truncate of ledger.{month} is missing",
    ),
    (
        (
            "CREATE FUNCTION public.peek() RETURNS bigint LANGUAGE sql SECURITY DEFINER "
            "AS 'SELECT count(*) FROM ledger.event'"
        ),
        "DROP FUNCTION public.peek",
        "function public.peek() runs with the rights of",
        "function public.peek() runs with the rights of",
    ),
    (
        "GRANT INSERT ON ledger.event TO runfold_worker",
        "REVOKE INSERT ON ledger.event FROM runfold_worker",
        "runfold_worker has INSERT on ledger.event",
        "runfold_worker has INSERT on event",
    ),
    (
        "GRANT SELECT ON ledger.payload TO PUBLIC",
        "REVOKE SELECT ON ledger.payload FROM PUBLIC",
        "PUBLIC has SELECT on ledger.payload",
        "PUBLIC has SELECT on payload",
    ),
    (
        "GRANT EXECUTE ON FUNCTION ledger.append_control TO PUBLIC",
        "REVOKE EXECUTE ON FUNCTION ledger.append_control FROM PUBLIC",
        "PUBLIC may call ledger.append_control",
        "append_control",
    ),
)


def test_each_hole_is_named_at_the_start_of_a_duty_and_by_doctor(
    brief: Cli, subtests: pytest.Subtests
) -> None:
    [[month]] = execute(brief.url, "SELECT to_char(now(), '\"event_\"YYYY_MM')")
    for make, undo, at_start, _ in MADE:
        with subtests.test(make):
            execute(brief.url, make.format(month=month))
            assert at_start.format(month=month) in brief.ok("reap").err
            execute(brief.url, undo.format(month=month))
    for make, *_ in MADE:
        execute(brief.url, make.format(month=month))

    doctor = brief("doctor")

    assert doctor.code == exits.UNHEALTHY
    said = " ".join(doctor.out.split())
    for *_, by_doctor in MADE:
        with subtests.test(by_doctor):
            assert by_doctor.format(month=month) in said


def test_a_server_without_the_security_fixes_is_named_at_the_start_and_by_doctor(
    brief: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    for major in FIXED_MINORS:
        monkeypatch.setitem(FIXED_MINORS, major, 99)

    assert "lacks a security fix" in brief.ok("reap").err
    assert brief("doctor").code == exits.UNHEALTHY


def test_a_login_that_was_granted_before_it_had_limits_is_named_when_it_starts(
    brief: Cli, database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    del brief  # what it patches ends the duty
    with asyncio.Runner() as runner:
        login = with_login(database, "runfold_worker", rights=("work", "read"))
        url = runner.run(login.__aenter__())
        own, [[name]] = Cli(url, capsys), execute(database, "SELECT current_database()")
        assert LINE not in own.ok("reap").err
        execute(database, f"ALTER ROLE {login_of(url)} IN DATABASE {name} RESET ALL")

        assert f"login {login_of(url)} has rights and no" in own.ok("reap").err

        runner.run(login.__aexit__(None, None, None))


def test_a_console_on_an_inherited_socket_is_open_only_where_that_is_bound_to_this_machine(
    brief: Cli,
) -> None:
    for address, whom in (
        ("127.0.0.1", "open to this machine"),
        ("0.0.0.0", "for those who sign in, and API tokens"),  # noqa: S104
    ):
        with socket.create_server((address, 0)) as made:
            assert whom in brief.ok("serve", "--socket", str(os.dup(made.fileno()))).err
    with open(os.devnull) as no_socket:
        answer = brief("serve", "--socket", str(no_socket.fileno()))
    assert answer.code == exits.USAGE
    assert "is not a socket" in answer.err


def test_in_production_the_owners_login_is_a_hole(
    brief: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNFOLD_ENV", "production")

    said = brief.ok("reap").err

    assert "this process logs in as postgres" in said
