"""What goes wrong first: an interrupt, an empty URL, a missing role, a broken module."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from runfold.console.cli.kit import exits
from runfold.console.cli.main import main
from runfold.ledger import access
from tests.console.test_process import PROGRAM, environment, run, started
from tests.support.console import Cli, cli, execute
from tests.support.databases import PROJECT
from tests.support.forked import Forked
from tests.support.server_folder import open_folder
from tests.support.waiting import BOUND

__all__ = ["cli"]

SECONDS = BOUND


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder for a built-in server, on a short path."""
    with open_folder() as folder:
        yield folder / "home"


# -- Ctrl-C ----------------------------------------------------------------------------------------


def test_ctrl_c_while_the_program_is_loaded_ends_it_quietly() -> None:
    interrupted = """
import os, signal, sys, time
class Finder:
    def find_spec(self, name, *_):
        if name == "runfold.console.cli.main":
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(60)
sys.meta_path.insert(0, Finder())
from runfold.console.cli.entry import main
main()
"""
    answer = subprocess.run(
        [sys.executable, "-c", interrupted], capture_output=True, timeout=SECONDS, check=False
    )

    assert (answer.returncode, answer.stdout, answer.stderr) == (exits.INTERRUPTED, b"", b"")


def test_little_is_loaded_before_an_interrupt_is_quiet() -> None:
    loaded = (
        "import sys; before = {*sys.modules}; import runfold.console.cli.entry;"
        " print(*sorted({*sys.modules} - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", loaded], capture_output=True, text=True, check=True
    )
    slow = {"typing", "re", "contextlib", "asyncio", "typer"}
    assert slow.isdisjoint(done.stdout.split())


def test_the_collector_of_garbage_rests_until_a_command_is_loaded() -> None:
    looked = """
import gc, sys
def look():
    print(gc.isenabled(), gc.get_freeze_count() > 0, file=sys.stderr)
class Finder:
    def find_spec(self, name, *_):
        if name == "runfold.console.cli.commands.project":
            look()
sys.meta_path.insert(0, Finder())
from runfold.console.cli.entry import main
main()
look()
"""
    words = [sys.executable, "-c", looked, "project", "list", "--help"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == ["False False", "True True"]


@pytest.mark.slow
def test_ctrl_c_while_the_first_server_is_made_ends_quietly(home: Path) -> None:
    setting = {"RUNFOLD_HOME": str(home), "RUNFOLD_PROJECT": "default"}
    with subprocess.Popen(
        [*PROGRAM, "runs"],
        env=environment(None, **setting),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        until_child(process.pid, "initdb")

        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole group
        _, said = process.communicate(timeout=SECONDS)

    assert (process.returncode, said) == (exits.INTERRUPTED, "")
    assert run(None, "runs", **setting).returncode == exits.OK


def test_ctrl_c_while_input_is_awaited_ends_at_once(database: str) -> None:
    ours, theirs = os.pipe()
    with Forked[str](
        [*PROGRAM, "submit", "parse", "-"],
        env=environment(database),
        stdin=ours,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        os.close(ours)
        until_it_reads(process.pid)

        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=SECONDS)
        os.close(theirs)

    assert (process.returncode, said) == (exits.INTERRUPTED, "")


def until_child(pid: int, name: str) -> None:
    """Wait until a process has a descendant of this name."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        with suppress(psutil.NoSuchProcess):  # a child of short life, which ended meanwhile
            if any(child.name() == name for child in psutil.Process(pid).children(recursive=True)):
                return
        time.sleep(0.01)
    pytest.fail(f"no {name} was started")


def until_it_reads(pid: int) -> None:
    """Wait until a process waits for its standard input, a pipe."""
    deadline = time.monotonic() + SECONDS
    while "pipe_read" not in Path(f"/proc/{pid}/wchan").read_text():
        if Path(f"/proc/{pid}/syscall").read_text().startswith("0 0x0 "):
            return
        assert time.monotonic() < deadline, "it does not read"
        time.sleep(0.01)


# -- settings and options --------------------------------------------------------------------------


def test_an_empty_url_is_refused_and_not_the_built_in_server() -> None:
    for words, setting, name in (
        (("--url", ""), {}, "--url"),
        ((), {"RUNFOLD_URL": ""}, "RUNFOLD_URL"),
    ):
        answer = run(None, *words, "submit", "parse", **setting)

        assert answer.returncode in {exits.USAGE, exits.ERROR}
        assert name in answer.stderr
        assert "empty" in answer.stderr


@pytest.mark.parametrize("since", ["0001-01-01T00:00:00Z", "0999-06-01T00:00:00Z"])
def test_years_that_no_run_has_are_refused_by_name(cli: Cli, since: str) -> None:
    assert "in the years 1970 to 9000" in cli.fails(exits.USAGE, "whatif", "--since", since).err
    cli.fails(exits.USAGE, "whatif", "--since", "9999-12-31T23:59:59-01:00")
    cli.ok("whatif", "--since", "1970-01-01T00:00:00+01:00".replace("+01:00", "Z"))


def test_a_bad_value_of_a_signal_is_called_so(cli: Cli) -> None:
    run_id = str(cli.submitted())

    assert "value" in cli.fails(exits.USAGE, "signal", run_id, "go", "{not json").err


def test_a_text_without_the_quotes_of_json_is_shown_with_them(cli: Cli) -> None:
    for word, said in (("ada", """: '"ada"'"""), ("n:=nine", """: '"nine"'"""), ("{ada", " 1)")):
        assert cli.fails(exits.USAGE, "submit", "greet", word).err.rstrip().endswith(said)


def test_errors_show_values_as_they_were_typed(cli: Cli) -> None:
    for words in (("drift", "--repair"), ("trace",), ("trace", "--follow")):
        said = cli.fails(exits.USAGE, *words).err
        assert "True" not in said
        assert "None" not in said


# -- roles -----------------------------------------------------------------------------------------


@contextmanager
def login_with_rights(url: str, role: str, *rights: str) -> Iterator[str]:
    """Make a login with a role of the server and rights in the project, and drop it afterwards."""
    login = f"trial_{os.urandom(4).hex()}"
    execute(url, f"CREATE ROLE {login} LOGIN")
    execute(url, f"GRANT {role} TO {login}")
    granted = f"'test', 'tests', '{login}', '{{{','.join(rights)}}}', NULL, NULL, NULL"
    execute(url, f"SELECT ledger.change_access({granted})")
    try:
        yield login
    finally:
        execute(url, f"DROP OWNED BY {login}")
        execute(url, f"DROP ROLE {login}")


def test_a_login_that_lacks_a_privilege_hears_which_role_it_needs(
    cli: Cli, database: str, capsys: pytest.CaptureFixture[str], subtests: pytest.Subtests
) -> None:
    cli.submitted()
    with login_with_rights(database, "runfold_reader", "read") as login:
        rights = f"'*', 'tests', '{login}', '{{{','.join(access.RIGHTS)}}}'"
        execute(database, f"SELECT ledger.change_access({rights}, NULL, NULL, NULL)")
        as_reader = Cli(database.replace("postgres@", f"{login}@"), capsys)
        for words, needed in (
            (("projections", "run", "--once"), "runfold_projector"),
            (("projections", "pause", "spending"), "runfold_projector"),
            (("roles", "grant", "finance", "ann"), "runfold_worker"),
            (("project", "create", "other"), "owner of the schema"),
            (("submit", "parse"), "runfold_worker"),
            (("kinds", "pause", "parse"), "runfold_worker"),
        ):
            with subtests.test(" ".join(words)):
                assert needed in as_reader.fails(exits.ERROR, *words).err


def test_a_worker_without_a_right_hears_who_grants_it_and_of_no_role_that_it_has(
    cli: Cli, database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with login_with_rights(database, "runfold_worker", "submit", "work", "read") as login:
        as_worker = Cli(database.replace("postgres@", f"{login}@"), capsys)

        said = as_worker.fails(exits.ERROR, "roles", "grant", "finance", "ann").err

        assert said == (
            f"error: {login} lacks the right admin in project test: an admin of the project"
            " grants it with `runfold access grant`\n"
        )


# -- modules ---------------------------------------------------------------------------------------


def test_an_error_in_the_users_module_is_shown_with_its_line(
    database: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "broken.py").write_text("import nowhere_to_be_found\n")
    (tmp_path / "wrong.py").write_text("def f(:\n")
    (tmp_path / "value.py").write_text("int('x')\n")
    (tmp_path / "ends.py").write_text("raise SystemExit(3)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    errors = {"broken": "ModuleNotFoundError", "wrong": "SyntaxError", "value": "ValueError"}

    def said(code: int, *words: str) -> str:
        assert main(["--url", database, "--project", PROJECT, *words]) == code
        return capsys.readouterr().err

    for command in (("worker",), ("projections", "list", "--module")):
        for module, error in errors.items():
            *trace, last = said(exits.ERROR, *command, module).splitlines()

            assert last.startswith(f"error: {module} cannot be imported: {error}")
            assert any(f"{module}.py" in line for line in trace)
            assert not any("console/cli" in line or "importlib" in line for line in trace)
        broken = json.loads(said(exits.ERROR, *command, "value", "--json"))["error"]
        assert broken["type"] == "ModuleBroken"
        assert "value.py" in broken["traceback"]
        assert "ends the program (exit 3)" in said(exits.USAGE, *command, "ends")


@pytest.mark.slow
def test_a_worker_says_which_handler_failed_where_and_what_comes_next(
    database: str, tmp_path: Path
) -> None:
    (tmp_path / "failing.py").write_text(
        "from runfold import Backoff, Fail, handler\n\n"
        "@handler('divide', retry=Backoff(first=0, jitter=0))\n"
        "async def divide(ctx):\n    return 1 // 0\n\n"
        "@handler('refuse')\nasync def refuse(ctx):\n    return Fail('E-NO', 'not today')\n\n"
        "@handler('stop')\nasync def stop(ctx):\n    return Fail('E-STOP')\n"
    )
    run(database, "submit", "divide", "--max-attempts", "2")
    run(database, "submit", "refuse")
    run(database, "submit", "stop")
    with started(database, "worker", "failing", PYTHONPATH=str(tmp_path)) as process:
        assert process.stderr is not None
        lines = [process.stderr.readline() for _ in range(5)]
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=SECONDS)

    failed = [line for line in lines if "attempt_failed" in line]
    first, last = [line for line in failed if "ZeroDivisionError" in line]
    assert "failing.py:5 in divide" in first
    assert "another attempt" in first
    assert "the run has failed" in last
    assert any("E-NO" in line and "not today" in line for line in failed)
    assert any("E-STOP" in line and "the handler gave none" in line for line in failed)


NO_HANDLERS = (
    (("json",), "error: handlers 'json': has no handler"),
    (("nowhere",), "there is no module 'nowhere' in /"),
    (("nowhere.py",), "name the module, as in 'nowhere'"),
    (("./shop/nowhere.py",), "name the module, as in 'shop.nowhere'"),
    (("/srv/nowhere.py",), "name the module, as in 'nowhere'"),
    ((".nowhere",), "is not a module's name"),
    (("tests.support.handlers:nothing",), "has no 'nothing'"),
    (("tests.support.handlers:PLAIN",), "is not a handler"),
    (("tests.support.waiting",), "has no handler"),
    (("tests.support.handlers", "--grace", "soon"), "must be a duration"),
)


def test_a_worker_that_cannot_work_says_why_before_it_connects(
    capsys: pytest.CaptureFixture[str], subtests: pytest.Subtests
) -> None:
    cli = Cli("postgresql://127.0.0.1:1/nowhere", capsys)
    for words, why in NO_HANDLERS:
        with subtests.test(words=words):
            assert why in cli.fails(exits.USAGE, "worker", *words).err


def test_a_folder_of_our_name_in_the_current_folder_does_not_break_a_fleet(
    database: str, tmp_path: Path
) -> None:
    (tmp_path / "runfold").mkdir()
    (tmp_path / "runfold" / "__init__.py").write_text("raise SystemExit('the wrong runfold')\n")
    (tmp_path / "app.py").write_text(
        "from runfold.workers import handler\n\n\n"
        "@handler('parse')\nasync def parse(ctx, input):\n    return input\n"
    )
    code = "import sys; from runfold.console.cli.main import main; sys.exit(main())"
    with subprocess.Popen(
        [sys.executable, "-P", "-c", code, "worker", "app", "--processes", "2"],
        cwd=tmp_path,
        env=environment(database),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        assert "starting 2 processes of app" in process.stderr.readline()
        lines = [process.stderr.readline() for _ in range(2)]
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=SECONDS)

    assert all("serves parse" in line for line in lines), lines


# -- projections -----------------------------------------------------------------------------------


def test_a_projection_whose_module_is_not_named_is_not_said_to_be_missing(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_projection.py").write_text(
        "from runfold.projections.algebra.operation import count\n"
        "from runfold.projections.declared.projection import Projection\n\n"
        "OWN = Projection('own', key={'project_id': 'project_id'}, "
        "columns={'runs': count({'run.submitted'})}, derived={'none': '0 / (runs * 3.0)'})\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    cli.ok("submit", "parse")
    cli.ok("projections", "run", "own", "--once", "--module", "own_projection")

    for words in (("rebuild", "own"), ("run", "own", "--once")):
        assert "--module" in cli.fails(exits.USAGE, "projections", *words).err
    cli.fails(exits.NOT_FOUND, "projections", "rebuild", "nosuch")
    cli.fails(exits.NOT_FOUND, "projections", "rebuild", "nosuch", "--drop-old")
    assert "E-" not in cli.ok("projections", "show", "own").out
    cli.ok("projections", "rebuild", "own", "--module", "own_projection")
    assert "dropped" in cli.ok("projections", "rebuild", "own", "--drop-old").out


def test_a_projection_that_fails_unexpectedly_does_not_end_the_others(
    database: str, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import runfold.workers.duties.projector as p\n"
        "async def run(self):\n"
        "    if self._catch_up.projection.name == 'attempts':\n"
        "        raise AttributeError('no values')\n"
        "    print('keeps up:', self._catch_up.projection.name, flush=True)\n"
        "    import asyncio\n"
        "    await asyncio.Event().wait()\n"
        "p.Projector.run = run\n"
    )
    words = ("projections", "run", "attempts", "spending")
    with started(database, *words, PYTHONPATH=str(tmp_path)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "keeps up: spending\n"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=SECONDS)

    assert process.returncode == exits.INTERRUPTED
    assert "AttributeError: no values" in said
