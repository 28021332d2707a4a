"""The built-in PostgreSQL: one server per folder, shared by its clients, stopped by the last."""

from __future__ import annotations

import atexit
import fcntl
import os
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Final, Self
from urllib.parse import quote

from runfold.ledger.errors import EmbeddedPostgresError
from runfold.ledger.postgres.embedded.server import Server
from runfold.ledger.postgres.embedded.store import Store

TEMPORARY: Final = Path("/tmp")  # noqa: S108  a folder of its own is made in it
"""Not TMPDIR: a socket's path must stay short, and the server's account must reach it."""
MOST_TRIES: Final = 1_000
"""How often a home may be deleted between its making and its locking before that is an error."""


def default_home() -> Path:
    """Return RUNFOLD_HOME; else /var/lib/runfold for root, else `runfold` in the user's data."""
    if chosen := os.environ.get("RUNFOLD_HOME"):
        return Path(chosen).expanduser()
    if os.geteuid() == 0:  # root's own folder is closed to the account that runs the server
        return Path("/var/lib/runfold")
    data = Path(os.environ.get("XDG_DATA_HOME", ""))
    return (data if data.is_absolute() else Path.home() / ".local" / "share") / "runfold"


class EmbeddedPostgres:
    """A PostgreSQL server in a folder; whatever opens the same folder gets the same server.

    It runs from the first `start` to the last `close`; a client that was killed counts as gone.
    The settings are those of the client that started it. The data of an ephemeral server may be
    lost in a crash; the last `close` deletes them.
    """

    def __init__(
        self, home: Path, *, settings: Mapping[str, str] | None = None, ephemeral: bool = False
    ) -> None:
        """Start nothing yet; raise EmbeddedPostgresError if root finds no account for a server."""
        self._store = Store(home, settings or {}, ephemeral=ephemeral)
        self._server = Server(self._store)

    def start(self) -> Self:
        """Create or recover the server where needed and return once it answers; may be repeated.

        Raises EmbeddedPostgresError, with the remedy or with what PostgreSQL said.
        """
        try:
            _registry.enter(self, self._server)
        except OSError as error:
            raise EmbeddedPostgresError(f"cannot use {self._store.home}: {error}") from error
        return self

    def close(self) -> None:
        """Leave the server, and stop it if no other client has it open; may be repeated.

        Raises EmbeddedPostgresError if the server does not stop.
        """
        _registry.leave(self, self._server)

    def url(self, database: str = "postgres") -> str:
        """Return the address of a database, the same whatever PGHOST and PGPORT say."""
        where = quote(str(self._store.socket_dir), safe="")
        return f"postgresql://postgres@/{quote(database, safe='')}?host={where}&port=5432"

    @property
    def log_dir(self) -> Path:
        """The folder of the server's log files."""
        return self._store.log_dir

    @property
    def is_running(self) -> bool:
        """Whether the server is alive, no matter who started it."""
        return self._server.is_running

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()


@contextmanager
def temporary_postgres(
    settings: Mapping[str, str], place: Path = TEMPORARY
) -> Iterator[EmbeddedPostgres]:
    """Run an ephemeral server below `place` and leave nothing of it.

    Raises EmbeddedPostgresError.
    """
    with tempfile.TemporaryDirectory(
        prefix="runfold-", dir=place, ignore_cleanup_errors=True
    ) as folder:
        Path(folder).chmod(0o755)
        with EmbeddedPostgres(Path(folder), settings=settings, ephemeral=True) as postgres:
            yield postgres


class _Registry:
    """The servers that this process has open; exit, SIGTERM and SIGHUP close them."""

    def __init__(self) -> None:
        self._stakes: dict[Path, _Stake] = {}
        self._begin()

    def _begin(self) -> None:
        # Reentrant, because a signal handler runs on top of whatever the main thread is doing.
        self._lock = threading.RLock()
        self._busy = False
        self._pending_signal: int | None = None

    def enter(self, holder: object, server: Server) -> None:
        """Open the server for the holder; raises EmbeddedPostgresError or OSError."""
        with self._undisturbed():
            self._catch_signals()
            stake = self._stakes.get(server.store.home) or _Stake(server)
            stake.join(server)
            self._stakes[server.store.home] = stake
            stake.holders.add(holder)

    def leave(self, holder: object, server: Server) -> None:
        """Close the server for the holder, if it has it open."""
        with self._undisturbed():
            stake = self._stakes.get(server.store.home)
            if stake is None or holder not in stake.holders:
                return
            stake.holders.remove(holder)
            if not stake.holders:
                del self._stakes[server.store.home]
                stake.leave()

    def leave_all(self) -> None:
        """Close every server, even if one of them does not stop."""
        with self._undisturbed(), ExitStack() as leaving:
            while self._stakes:
                leaving.callback(self._stakes.popitem()[1].leave)

    def forget(self) -> None:
        """Begin anew in a forked child: the servers are the parent's, and the lock may be held."""
        while self._stakes:
            self._stakes.popitem()[1].disown()
        self._begin()

    @contextmanager
    def _undisturbed(self) -> Iterator[None]:
        """Keep other threads out and signals waiting, so that nothing is left half started."""
        with self._lock:
            self._busy = True
            try:
                yield
            finally:
                self._busy = False
                if self._pending_signal is not None:
                    self._end(self._pending_signal)

    def _catch_signals(self) -> None:
        """Handle SIGTERM and SIGHUP unless the program already does."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        with self._lock:
            if self._busy:  # it is the main thread itself, interrupted by this handler
                self._pending_signal = number
                return
        self._end(number)

    def _end(self, number: int) -> None:
        self._pending_signal = None
        try:
            self.leave_all()
        finally:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)


class _Stake:
    """One process's part in a home: one shared lock, however many objects hold it here.

    The kernel drops a process's locks however it ends, so a killed client keeps no server alive.
    """

    def __init__(self, server: Server) -> None:
        self.holders: set[object] = set()
        self._server = server
        self._store = server.store
        self._client_lock: int | None = None

    def join(self, server: Server) -> None:
        """Become a client, if not one yet, and return once the server answers."""
        with self._alone(create=True):
            was_client = self._client_lock is not None
            if self._client_lock is None:
                self._client_lock = self._open("clients.lock")
                fcntl.flock(self._client_lock, fcntl.LOCK_SH)
            try:
                server.ensure_running()
            except BaseException:
                if not was_client:
                    self._leave()
                raise

    def leave(self) -> None:
        """Leave; the last client stops the server."""
        with suppress(FileNotFoundError), self._alone(create=False):
            self._leave()
        self.disown()

    def disown(self) -> None:
        """Close our descriptor of the client lock; a parent that inherited the lock keeps it."""
        if self._client_lock is not None:
            os.close(self._client_lock)
            self._client_lock = None

    def _leave(self) -> None:
        try:
            if self._is_last_client():
                self._server.stop()
                self._store.clear_away()
        finally:
            self.disown()

    def _is_last_client(self) -> bool:
        if self._client_lock is None:
            return False
        # Unlocked before it is closed: a forked child that has it open would keep the lock.
        fcntl.flock(self._client_lock, fcntl.LOCK_UN)
        with suppress(BlockingIOError):
            fcntl.flock(self._client_lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(self._client_lock, fcntl.LOCK_UN)
            return True
        return False

    @contextmanager
    def _alone(self, *, create: bool) -> Iterator[None]:
        """Keep other clients from starting or stopping the server while the block lasts."""
        entered, tries = False, 0
        while not entered:
            try:
                if create:
                    self._store.make_home()
                lock = self._open("start.lock")
            except FileNotFoundError:
                tries += 1
                if not create or tries == MOST_TRIES:
                    raise
                continue  # the last client of an ephemeral server has just deleted it
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if entered := self._is_in_place(lock):
                    yield
            finally:
                fcntl.flock(lock, fcntl.LOCK_UN)
                os.close(lock)

    def _open(self, name: str) -> int:
        lock = os.open(self._store.home / name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        self._store.account.own(lock)
        return lock

    def _is_in_place(self, lock: int) -> bool:
        with suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(lock), (self._store.home / "start.lock").stat())
        return False


_registry = _Registry()
atexit.register(_registry.leave_all)
os.register_at_fork(after_in_child=_registry.forget)
