"""`runfold up`: everything in one command, its parts kept alive, and ended together."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil  # type: ignore[import-untyped]
import pytest

from runfold.console.cli.commands import up_parts
from runfold.console.cli.kit import exits
from runfold.console.cli.kit.session import Session
from runfold.console.cli.main import main
from tests.support.forked import Forked
from tests.support.receiver import Receiver, receiving
from tests.support.server_folder import open_folder
from tests.support.waiting import BOUND, until

ROOT = Path(__file__).parents[2]


@pytest.fixture
def home() -> Iterator[Path]:
    """The folder of a built-in PostgreSQL that nobody has started yet."""
    with open_folder() as folder:
        yield folder


@contextmanager
def up(home: Path, *words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run `runfold up` on a free port; yield the process and the console's address."""
    with Forked[str](
        [sys.executable, "-m", "runfold.console.cli.entry", *words, "--port", "0", "--no-browser"],
        env={**os.environ, "RUNFOLD_HOME": str(home)},
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        assert process.stderr is not None
        parts: list[psutil.Process] = []
        try:
            said = process.stderr.readline()
            address = re.search(r"http://\S+", said)
            assert address, said + process.stderr.read()
            assert "Ctrl-C ends it" in process.stderr.readline()
            yield process, address[0]
        finally:
            with suppress(psutil.NoSuchProcess):
                parts = psutil.Process(process.pid).children()
            process.kill()
            for each in parts:
                each.kill()


def ended(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """End the command with a signal; fail unless all its processes end."""
    parts = psutil.Process(process.pid).children()
    process.send_signal(number)
    assert process.wait(BOUND) == exits.OK
    assert not any(part.is_running() for part in parts)


def part(process: subprocess.Popen[str], word: str) -> psutil.Process | None:
    """Find the part whose command has a word."""
    for one in psutil.Process(process.pid).children():
        if one.status() != psutil.STATUS_ZOMBIE and word in one.cmdline():
            return one
    return None


@pytest.mark.slow
@pytest.mark.own_server
async def test_one_command_does_a_run_survives_the_death_of_a_part_and_starts_again(
    home: Path,
) -> None:
    with up(home, "up", "tests.support.handlers") as (process, address):
        async with (
            receiving() as receiver,
            httpx.AsyncClient(base_url=address, timeout=BOUND) as web,
        ):
            hook = {"url": receiver.url, "events": ["run.completed"]}
            (await web.post("/v1/webhooks", json=hook)).raise_for_status()
            run = (await web.post("/v1/runs", json={"kind": "double", "input": 4})).json()["run_id"]
            await until(lambda: is_done(web, run))
            await until(lambda: has_come(receiver, run))  # the sender sends to this machine
            assert await counted(web)

            console = part(process, "serve")
            assert console is not None
            assert part(process, "webhooks") is not None
            console.kill()
        async with httpx.AsyncClient(base_url=address, timeout=BOUND) as web:  # a new connection
            assert (await web.get(f"/v1/runs/{run}")).json()["output"] == 8  # by its successor
        assert process.stderr is not None
        died = process.stderr.readline()
        assert "worker_process_died" in died
        assert "console" in died
        ended(process, signal.SIGINT)

    with up(home, "up") as (process, address):
        async with httpx.AsyncClient(base_url=address, timeout=BOUND) as web:
            assert (await web.get(f"/v1/runs/{run}")).json()["state"] == "completed"
        ended(process, signal.SIGTERM)


async def is_done(web: httpx.AsyncClient, run: str) -> bool:
    """Whether the worker has completed the run."""
    return bool((await web.get(f"/v1/runs/{run}")).json()["state"] == "completed")


async def has_come(receiver: Receiver, run: str) -> bool:
    """Whether the receiver was told of the run."""
    return any(json.loads(body)["data"]["run_id"] == run for _, body in receiver.requests)


async def counted(web: httpx.AsyncClient) -> bool:
    """Return once the projections have counted the run."""

    async def has_count() -> bool:
        counts = (await web.get("/p/default.json")).json()["counts"]
        return bool(counts and counts["completed"] == 1)

    await until(has_count)
    return True


async def test_a_database_with_no_schema_is_given_one(empty_database: str) -> None:
    session = Session(empty_database, None, as_json=False, verbose=False)
    async with up_parts.ready_database(session) as database:
        assert await database.projects() == []


def test_an_occupied_port_is_named_with_the_remedy(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RUNFOLD_HOME", str(home))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["up", "--port", str(port)]) == exits.ERROR
    error = capsys.readouterr().err
    assert f"cannot listen on 127.0.0.1:{port}" in error
    assert "give another --host or --port" in error
    assert list(home.iterdir()) == []  # no database was started for it


@pytest.mark.parametrize(
    ("display", "opened"), [({"DISPLAY": ":0"}, ["http://x"]), ({"DISPLAY": ""}, [])]
)
def test_a_browser_is_opened_only_where_there_is_a_display(
    display: dict[str, str], opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    for name, value in display.items():
        monkeypatch.setenv(name, value)
    shown: list[str] = []
    monkeypatch.setattr("webbrowser.open", shown.append)
    up_parts.open_browser("http://x")
    assert shown == opened
