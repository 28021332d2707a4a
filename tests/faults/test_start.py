"""Workers that start before their database does, and duties that crash."""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from runfold.console.cli.kit import exits
from runfold.ledger import Ledger, names
from runfold.ledger.postgres.embedded.postgres import EmbeddedPostgres
from runfold.workers import Worker
from runfold.workers.duties import duty as duties
from runfold.workers.duties.reaper import Reaper
from runfold.workers.errors import NeverBegan
from runfold.workers.process import beginning
from runfold.workers.process import fleet as fleets
from runfold.workers.process.fleet import Fleet, Part
from runfold.workers.process.serve import serve
from tests.console.test_process import run as runfold
from tests.support.databases import PROJECT
from tests.support.handlers import double
from tests.support.processes import assert_story, said, worker
from tests.support.waiting import BOUND, until
from tests.support.working import ended, working


@pytest.mark.slow
async def test_a_worker_that_starts_before_its_database_waits_and_says_so(
    own_server: EmbeddedPostgres, own_ledger: Ledger, tmp_path: Path
) -> None:
    run = await own_ledger.submit("steps")
    await asyncio.to_thread(own_server.close)
    log, fleets_log = tmp_path / "log", tmp_path / "fleet"
    with (
        worker(own_server.url(), log=log),
        worker(own_server.url(), "--processes", "2", log=fleets_log),
    ):
        await until(
            lambda: (
                said(log, names.WAITING_FOR_DATABASE)
                and said(fleets_log, names.WAITING_FOR_DATABASE)
            ),
        )
        await asyncio.to_thread(own_server.start)
        await ended(own_ledger, run)
        await until(lambda: said(log, names.DATABASE_ANSWERS))
        await until(lambda: said(fleets_log, names.DATABASE_ANSWERS))

    assert len(said(log, names.WAITING_FOR_DATABASE)) == 1
    await assert_story(own_ledger, run)


async def test_a_projector_and_servers_that_start_before_their_database_wait_for_it(
    own_server: EmbeddedPostgres, own_ledger: Ledger, tmp_path: Path
) -> None:
    await own_ledger.submit("parse")
    await asyncio.to_thread(own_server.close)
    log, servers = tmp_path / "log", {name: tmp_path / name for name in ("serve", "metrics")}
    with ExitStack() as stack:
        stack.enter_context(
            worker(own_server.url(), "run", "run_counts", name="projections", log=log)
        )
        for name, its_log in servers.items():
            stack.enter_context(worker(own_server.url(), "--port", "0", name=name, log=its_log))
        logs = (log, *servers.values())
        await until(lambda: all(said(each, names.WAITING_FOR_DATABASE) for each in logs))
        await asyncio.to_thread(own_server.start)
        await until(lambda: all(said(each, names.DATABASE_ANSWERS) for each in logs))
        counted = "SELECT to_regclass('projection.run_counts') IS NOT NULL"
        await until(lambda: own_ledger.pool.fetchval(counted))
        rows = "SELECT sum(runs) = 1 FROM projection.run_counts"
        await until(lambda: own_ledger.pool.fetchval(rows))


@pytest.mark.parametrize("name", ["worker", "serve", "metrics"])
async def test_what_waits_for_its_database_ends_when_it_is_told_to(
    name: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with worker("postgresql://u@127.0.0.1:1/nowhere", name=name, log=log) as patient:
        await until(lambda: said(log, names.WAITING_FOR_DATABASE))
        patient.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(patient.wait, BOUND) == exits.OK


@pytest.mark.parametrize("steps", range(4))
async def test_a_worker_that_is_told_to_end_just_as_its_database_answers_ends(
    database: str, steps: int
) -> None:
    @asynccontextmanager
    async def answering() -> AsyncIterator[Ledger]:
        async with Ledger.open(database, PROJECT) as ledger:
            os.kill(os.getpid(), signal.SIGTERM)  # is heard before, at or after the answer
            for _ in range(steps):
                await asyncio.sleep(0)
            yield ledger

    async with asyncio.timeout(BOUND):
        await serve(answering, lambda opened: Worker(opened, [double], grace=1), lambda _: None)


WORKER = Part("worker", ["worker", "tests.support.handlers", "--project", PROJECT])


class Hasty(Fleet):
    """A fleet that is told to end while each of its processes starts, before it knows them."""

    async def _start(self, part: Part, telling: int) -> Process:
        process = await super()._start(part, telling)
        self._pass_on()
        return process


async def test_a_process_that_starts_while_its_fleet_is_told_to_end_ends_too(database: str) -> None:
    async with asyncio.timeout(BOUND):
        await Hasty([WORKER], {"RUNFOLD_URL": database}).run()


class Starved(Fleet):
    """A fleet that cannot start its second process at first."""

    tries = 0

    async def _start(self, part: Part, telling: int) -> Process:
        self.tries += 1
        if self.tries == 2:
            raise OSError("no memory")
        return await super()._start(part, telling)

    def end(self) -> None:
        """Tell it to end."""
        self._pass_on()


async def test_a_process_that_cannot_be_started_ends_no_other(
    database: str, ledger: Ledger
) -> None:
    fleet = Starved([WORKER] * 2, {"RUNFOLD_URL": database})
    running = asyncio.create_task(fleet.run())
    await until(lambda: fleet.tries == 3 or running.done())
    run = await ledger.submit("double", 4)
    assert (await ended(ledger, run)).output == 8
    fleet.end()
    async with asyncio.timeout(BOUND):
        await running


async def test_a_part_that_never_begins_ends_the_command_with_its_own_error(
    database: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fleets, "RESTART_SECONDS", 0.01)
    monkeypatch.setattr(fleets, "MAX_TRIES", 2)
    broken = Part("console", ["serve", "--project", "nowhere"])
    async with asyncio.timeout(BOUND):
        with pytest.raises(NeverBegan, match="console cannot start: it ended 2 times") as error:
            await Fleet([WORKER, broken], {"RUNFOLD_URL": database}).run()
    assert "project 'nowhere' does not exist" in str(error.value)
    died = [line for line in capfd.readouterr().err.splitlines() if names.PROCESS_DIED in line]
    assert len(died) == 2  # the worker beside it was told to end, and ended


async def test_what_a_part_prints_is_on_standard_error(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fleets, "MAX_TRIES", 1)
    with pytest.raises(NeverBegan, match="no reason was given"):
        await Fleet([Part("prints", ["--version"])]).run()
    printed = capfd.readouterr()
    assert "runfold 0" in printed.err
    assert printed.out == ""


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["\n", "\0", "late"], (True, "late")),
        (["\0", "\0"], (False, "")),
        (["\0", "no schema\0"], (False, "no schema?")),
    ],
)
def test_a_process_tells_its_parent_once_it_has_begun_and_else_why_it_could_not(
    words: list[str], told: tuple[bool, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beginning.Parent, "descriptor", None)
    reading, writing = os.pipe()
    beginning.tell_by(writing)
    telling = beginning.Telling(reading)
    assert not telling.hear()
    tell = {"\n": beginning.begun, "\0": beginning.alive}
    for word in words:
        tell.get(word, partial(beginning.failed, word))()
        assert telling.hear()
    assert (telling.has_begun, telling.reason) == told
    os.close(writing)
    assert telling.hear()  # whoever has closed the pipe is not taken for frozen
    os.close(reading)


@pytest.mark.parametrize(
    ("wrong", "processes"), [("login", "1"), ("database", "2"), ("schema", "1")]
)
def test_a_worker_that_no_waiting_would_help_ends_with_an_error(
    empty_database: str, wrong: str, processes: str
) -> None:
    parts = urlsplit(empty_database)
    url, why = {
        "login": (parts._replace(netloc="stranger@"), 'role "stranger" does not exist'),
        "database": (parts._replace(path="/nowhere"), 'database "nowhere" does not exist'),
        "schema": (parts, "runfold db upgrade"),
    }[wrong]

    answer = runfold(url.geturl(), "worker", "tests.support.handlers", "--processes", processes)

    assert answer.returncode == exits.ERROR
    assert why in answer.stderr


async def test_a_duty_that_crashes_is_reported_and_begun_again(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(duties, "RESTART_SECONDS", 0.01)
    swept: list[str] = []

    async def crashes_at_first(self: Reaper) -> list[object]:
        swept.append("tick")
        if len(swept) == 1:
            raise ZeroDivisionError("a defect of the reaper")
        return []

    monkeypatch.setattr(Reaper, "tick", crashes_at_first)
    async with working(ledger, double, reap=True):
        await until(lambda: len(swept) > 1)
        assert (await ended(ledger, await ledger.submit("double", 2))).output == 4

    said_so = capsys.readouterr().err
    assert said_so.count(names.DUTY_CRASHED) == 1
    assert "a defect of the reaper" in said_so
    assert "Reaper" in said_so
