"""The command line as a process: streams, signals, terminals, start-up, the built-in server."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar
from uuid import UUID

import psutil  # type: ignore[import-untyped]
import pytest
import typer

from runfold.console.cli.kit import exits
from runfold.console.cli.main import Program, app, main
from runfold.ledger import Ledger, State
from tests.support import forked
from tests.support.console import Cli
from tests.support.databases import PROJECT
from tests.support.forked import Forked
from tests.support.runs import abandoned, claimed
from tests.support.server_folder import open_folder
from tests.support.waiting import BOUND, until

T = TypeVar("T")
PROGRAM = (sys.executable, "-m", "runfold.console.cli.entry")
SECONDS = BOUND


def environment(url: str | None, **more: str) -> dict[str, str]:
    """Return the program's environment: the database by RUNFOLD_URL, nothing of the developer's."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RUNFOLD_")}
    kept.pop("PYTHONUNBUFFERED", None)
    kept |= {"RUNFOLD_PROJECT": PROJECT} | ({"RUNFOLD_URL": url} if url else {})
    return kept | {"TERM": "xterm", "PYTHONWARNINGS": "error"} | more


def run(url: str | None, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the program to its end."""
    return forked.run([*PROGRAM, *words], env=environment(url, **more), timeout=SECONDS)


@contextmanager
def started(url: str, *words: str, **more: str) -> Iterator[subprocess.Popen[str]]:
    """Start the program; at the end it must be gone."""
    with Forked[str](
        [*PROGRAM, *words],
        env=environment(url, **more),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def given(url: str, prepare: Callable[[Ledger], Awaitable[T]]) -> T:
    """Bring the ledger to where a test needs it."""

    async def prepared() -> T:
        async with Ledger.open(url, PROJECT) as ledger:
            return await prepare(ledger)

    return asyncio.run(prepared())


def test_data_goes_to_stdout_and_talk_to_stderr(database: str) -> None:
    submitted = run(database, "submit", "parse", "path=a.py")
    run_id = submitted.stdout.strip()
    listed = run(database, "runs", "--json")

    assert submitted.returncode == exits.OK
    assert UUID(run_id).version == 7
    assert "runfold history" in submitted.stderr
    assert json.loads(listed.stdout)["run_id"] == run_id
    assert listed.stderr == ""


def test_errors_are_one_line_and_an_exit_code(database: str) -> None:
    missing = run(database, "show", "01970000-0000-7000-8000-000000000000")
    down = run("postgresql://127.0.0.1:1/nowhere", "runs")

    assert (missing.returncode, down.returncode) == (exits.NOT_FOUND, exits.ERROR)
    for answer in (missing, down):
        assert answer.stdout == ""
        (line,) = answer.stderr.splitlines()
        assert line.startswith("error: ")


def test_arguments_that_are_no_text_are_refused(database: str) -> None:
    answer = subprocess.run(
        [*map(os.fsencode, PROGRAM), b"submit", b"k\xff"],
        env=environment(database),
        capture_output=True,
        timeout=SECONDS,
        check=False,
    )

    assert answer.returncode == exits.USAGE
    assert len(answer.stderr.splitlines()) == 1


def test_a_terminal_without_unicode_is_no_obstacle(database: str) -> None:
    run(database, "submit", "prüfen", PYTHONIOENCODING="ascii")

    answer = run(database, "runs", PYTHONIOENCODING="ascii")

    assert answer.returncode == exits.OK
    assert r"pr\xfcfen" in answer.stdout


def test_a_reader_that_went_away_is_no_error_message(database: str) -> None:
    given(database, claimed)
    with started(database, "runs", "--json") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()

        assert process.wait(SECONDS) == exits.BROKEN_PIPE
        assert process.stderr.read() == ""


def test_follow_prints_what_happens_until_the_run_has_ended(database: str) -> None:
    lease = given(database, claimed)
    with started(database, "history", str(lease.run_id)[:30], "--follow") as process:
        assert process.stdout is not None
        seen = [process.stdout.readline().split()[4] for _ in range(2)]

        given(database, lambda ledger: ledger.transition(lease, State.COMPLETED))
        rest, said = process.communicate(timeout=SECONDS)

        assert seen == ["run.submitted", "lease.acquired"]
        assert [line.split()[4] for line in rest.splitlines()] == ["run.completed"]
        assert (process.returncode, said) == (exits.OK, "")


def test_ctrl_c_ends_following_quietly(database: str) -> None:
    lease = given(database, claimed)
    with started(database, "history", str(lease.run_id), "--follow") as process:
        assert process.stdout is not None
        assert process.stdout.readline()

        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=SECONDS)

        assert (process.returncode, said) == (exits.INTERRUPTED, "")


def test_reap_is_a_duty_until_ctrl_c(database: str) -> None:
    given(database, abandoned)
    fast = {  # a database that takes half a lease's time to answer puts off the sweep
        "RUNFOLD_LEASE_TTL_SECONDS": "1.2",
        "RUNFOLD_HEARTBEAT_SECONDS": "0.2",
        "RUNFOLD_REAPER_SECONDS": "0.05",
    }
    with started(database, "reap", **fast) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("reaping project test every 0.05 s")
        assert any("stale_run_requeued" in line for line in process.stderr)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=SECONDS)

        assert process.returncode == exits.INTERRUPTED
        assert "Traceback" not in said


@pytest.mark.parametrize(("colour", "setting"), [(True, {}), (False, {"NO_COLOR": "1"})])
def test_a_terminal_gets_colours_unless_it_wants_none(
    database: str,
    colour: bool,  # noqa: FBT001  a parameter of the test
    setting: dict[str, str],
) -> None:
    run_id = given(database, claimed).run_id
    for words in (("runs",), ("history", str(run_id)), ("doctor",)):
        shown = on_a_terminal(database, *words, **setting)

        assert ("\x1b[3" in shown) is colour
        assert (str(run_id) in shown) is (words == ("runs",))


@pytest.mark.slow
def test_no_word_is_lost_on_a_narrow_terminal(
    database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async def shown(ledger: Ledger) -> UUID:
        lease = await claimed(
            ledger, "worker-of-a-long-name:1", key="a-key-of-some-length", tags=["europe", "vip"]
        )
        await ledger.retry(lease, error_code="E-HTTP", error_detail="the server says: too busy")
        return lease.run_id

    run_id = str(given(database, shown))
    for words in (
        ("runs",), ("history", run_id), ("show", run_id), ("trace", run_id),
        ("diff", run_id, "--from=1"),
    ):  # fmt: skip
        piped = Cli(database, capsys).ok(*words)
        for columns in (40, 80):
            seen = on_a_terminal(database, *words, NO_COLOR="1", COLUMNS=str(columns))
            plain = re.sub(r"\x1b\[[0-9;]*m", "", seen).replace("\r", "")

            lines = [line for line in plain.splitlines() if line not in piped.err.splitlines()]
            assert max(map(len, lines)) <= columns
            unbroken = "".join(plain.split()).lower()
            for word in piped.out.split():
                if not re.search(r"ago|ms|\d+s$|^-$|^(WORKER|INPUT|AGE)$", word) and word.isascii():
                    assert word.lower() in unbroken, (words, word, plain)


def test_verify_shows_its_progress_on_a_terminal(database: str) -> None:
    given(database, claimed)

    assert "verifying" in on_a_terminal(database, "verify")
    assert run(database, "verify").stderr == ""


def on_a_terminal(url: str, *words: str, **more: str) -> str:
    """Run the program on a terminal, where it must succeed; return what the terminal got."""
    shown, code = typed(url, "", *words, **more)
    assert code == exits.OK, shown
    return shown


def typed(url: str, text: str, *words: str, **more: str) -> tuple[str, int]:
    """Run the program on a terminal of 80 columns and type a text.

    Return what the terminal got, and the exit code.
    """
    ours, theirs = pty.openpty()
    with Forked[bytes](
        [*PROGRAM, *words],
        env=environment(url, **{"COLUMNS": "80"} | more),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        os.write(ours, text.encode())
        got = bytearray()
        with suppress(OSError):  # what Linux says when the program at the other end has gone
            while chunk := os.read(ours, 65_536):
                got += chunk
        code = process.wait(SECONDS)
    os.close(ours)
    return got.decode(), code


@pytest.mark.parametrize(
    ("calls", "heavy"),
    [
        ("[['--help'], ['--version'], ['x']]", ("rich", "asyncpg", "structlog", "sqlalchemy")),
        ("[['runs', '--help'], ['submit', '--help']]", ("sqlalchemy", "alembic", "pyarrow")),
    ],
)
def test_help_and_usage_load_nothing_heavy(calls: str, heavy: tuple[str, ...]) -> None:
    probe = (
        "import sys; from runfold.console.cli.main import main; "
        f"[main(words) for words in {calls}]; "
        f"loaded = set({heavy!r}) & set(sys.modules); sys.exit(repr(loaded) if loaded else 0)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, timeout=SECONDS, check=False
    )

    assert answer.returncode == 0, answer.stderr


def test_every_command_has_the_line_that_the_list_of_commands_has() -> None:
    program = typer.main.get_command(app)
    assert isinstance(program, Program)

    for entry in Program.entries:
        lines = (program.load(entry.name).help or "").splitlines()
        assert lines[0] == entry.help


@pytest.mark.parametrize("columns", ["40", "80"])
def test_help_keeps_to_the_width_of_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    for words in (["--help"], ["submit", "--help"], ["projections", "skip", "--help"]):
        assert main(words) == exits.OK

        shown = capsys.readouterr().out
        assert max(map(len, shown.splitlines())) <= int(columns)
        assert "<bool>" not in shown


def test_completion_is_offered_for_the_shell(database: str) -> None:
    answer = run(
        database, _RUNFOLD_COMPLETE="complete_bash", COMP_WORDS="runfold hist", COMP_CWORD="1"
    )

    assert answer.stdout.split() == ["history"]


@pytest.mark.slow
def test_without_a_url_the_built_in_database_is_used() -> None:
    with open_folder() as home:
        setting = {"RUNFOLD_HOME": str(home / "home"), "RUNFOLD_PROJECT": "default"}
        run_id = run(None, "submit", "parse", **setting).stdout.strip()
        status = json.loads(run(None, "db", "status", "--json", **setting).stdout)
        url = run(None, "db", "url", **setting)

        assert json.loads(run(None, "runs", "--json", **setting).stdout)["run_id"] == run_id
        assert (status["embedded"], status["current"]) == (True, True)
        assert run(None, "db", "upgrade", **setting).stdout.endswith("is up to date\n")
        assert url.stdout.startswith("postgresql://postgres@/")
        assert "stops when the last" in url.stderr


def test_a_worker_does_runs_until_sigterm_and_gives_the_rest_back(database: str) -> None:
    with started(
        database,
        "worker",
        "tests.support.handlers",
        "--grace",
        "0.1s",
        "--kinds",
        "double",
        "--kinds",
        "hang",
    ) as process:
        assert process.stderr is not None
        assert "serves double, hang of project test, 10 at a time" in process.stderr.readline()

        async def worked(ledger: Ledger) -> UUID:
            quick, slow = await ledger.submit("double", 21), await ledger.submit("hang")

            async def as_wanted() -> bool:
                done, held = await ledger.get(quick.run_id), await ledger.get(slow.run_id)
                return done.output == 42 and held.state == State.RUNNING

            await until(as_wanted, seconds=SECONDS)
            return slow.run_id

        run_id = given(database, worked)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=SECONDS)

        assert (process.returncode, said) == (exits.OK, "")
    after = given(database, lambda ledger: ledger.get(run_id))
    assert (after.state, after.attempt_count) == (State.PENDING, 0)


@pytest.mark.parametrize(
    ("words", "greeting"),
    [
        (["reap"], "reaping project test"),
        (["projections", "run"], "keeping up"),
        (["metrics", "--port", "0"], "metrics on"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_a_duty_ends_well_by_sigterm_as_a_container_stops_its_first_process(
    database: str, words: list[str], greeting: str
) -> None:
    with started(database, *words) as process:
        assert process.stderr is not None
        while not (line := process.stderr.readline()).startswith(greeting):
            assert line, "it ended before it greeted"
        process.send_signal(signal.SIGTERM)
        _, rest = process.communicate(timeout=SECONDS)

        assert (process.returncode, rest) == (exits.OK, "")


@pytest.mark.slow
def test_a_fleet_starts_a_process_again_when_it_dies_and_ends_with_all_of_them(
    database: str,
) -> None:
    def children() -> list[psutil.Process]:
        return [
            one
            for one in psutil.Process(process.pid).children()
            if one.status() != psutil.STATUS_ZOMBIE
        ]

    with started(database, "worker", "tests.support.handlers", "--processes", "2") as process:
        assert process.stderr is not None
        assert "starting 2 processes" in process.stderr.readline()  # before any of them is up
        for _ in range(2):
            assert "Ctrl-C ends it" in process.stderr.readline()
        first = children()
        first[0].kill()
        assert "worker_process_died" in process.stderr.readline()
        assert "Ctrl-C ends it" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)

        assert process.wait(SECONDS) == exits.OK
        assert not any(one.is_running() for one in first)


def test_the_processes_of_a_fleet_show_no_url_and_end_when_their_parent_is_killed(
    database: str,
) -> None:
    words = ("worker", "tests.support.handlers", "--processes", "2")
    with started(database, "--url", database, *words) as process:
        assert process.stderr is not None
        assert "starting 2 processes" in process.stderr.readline()  # before any of them is up
        for _ in range(2):
            assert "Ctrl-C ends it" in process.stderr.readline()
        children = psutil.Process(process.pid).children()
        listed = [child.cmdline() for child in children]
        assert len(listed) >= 2
        assert "postgresql" not in str(listed)
        process.kill()

        _, alive = psutil.wait_procs(children, timeout=SECONDS)
        assert alive == []


def test_a_worker_without_a_handler_for_a_kind_says_so(database: str) -> None:
    answer = run(database, "worker", "tests.support.handlers", "--kinds", "draw")

    assert answer.returncode == exits.USAGE
    assert "has no handler here" in answer.stderr


def test_the_encoding_of_the_locale_changes_no_file_of_the_program(database: str) -> None:
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for words in (
        [*PROGRAM, "db", "status"],
        [sys.executable, "-c", "import runfold.console.web.pages.rendering"],
    ):
        answer = subprocess.run(
            words, env=environment(database, **ascii_only), capture_output=True, text=True,
            timeout=SECONDS, check=False,
        )  # fmt: skip
        assert (answer.returncode, answer.stderr) == (exits.OK, "")


@pytest.mark.parametrize(
    ("output", "code", "said"),
    [
        (">/dev/full", exits.ERROR, "error: cannot write the output: No space left on device\n"),
        (">&-", exits.OK, "parse is pending"),
        (">&- 2>&-", exits.OK, ""),
    ],
)
def test_an_output_that_takes_nothing_is_no_defect(
    database: str, output: str, code: int, said: str
) -> None:
    answer = subprocess.run(
        ["sh", "-c", f'exec "$0" "$@" {output}', *PROGRAM, "submit", "parse"],
        env=environment(database),
        stderr=subprocess.PIPE,
        text=True,
        timeout=SECONDS,
        check=False,
    )

    assert answer.returncode == code
    assert answer.stderr.startswith(said)
    assert "Error" not in answer.stderr
    assert "parse" in run(database, "runs").stdout


def test_what_nobody_can_be_told_ends_no_command(
    database: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    full = Path("/dev/full").open("w")  # noqa: SIM115  closing it fails
    monkeypatch.setattr(sys, "stderr", full)

    assert main(["--url", database, "--project", PROJECT, "submit", "parse"]) == 0

    with suppress(OSError):
        full.close()
    assert len(capsys.readouterr().out) == 37  # the run's id


def test_what_closes_standard_output_meanwhile_spoils_no_exit_code(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def reap(*_: object, **__: object) -> list[object]:
        """Close it, as a handler may."""
        sys.stdout.close()
        return []

    monkeypatch.setattr(Ledger, "reap", reap)
    monkeypatch.setattr(sys, "stdout", (tmp_path / "out").open("w"))

    assert main(["--url", database, "--project", PROJECT, "reap", "--once"]) == 0
