"""The server process of a store: find, start and stop it. The registry shares it among clients."""

from __future__ import annotations

import os
import shlex
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil  # type: ignore[import-untyped]

from runfold.ledger.errors import EmbeddedPostgresError
from runfold.ledger.postgres.embedded.store import SOCKET_NAME, Store

START_SECONDS: Final = 600  # recovery reads up to a checkpoint's worth of WAL, from any disk
FAST_STOP_SECONDS: Final = 60
IMMEDIATE_STOP_SECONDS: Final = 15


class Server:
    """The PostgreSQL of one store; started and stopped by one client at a time."""

    def __init__(self, store: Store) -> None:
        self.store = store

    @property
    def is_running(self) -> bool:
        """Whether the server is alive."""
        return self._postmaster() is not None

    def ensure_running(self) -> None:
        """Return once the server answers, whatever an earlier crash left behind.

        Raises EmbeddedPostgresError, with what PostgreSQL said, if it cannot be done.
        """
        self.store.complete()
        if not self._answers() and not self._answers_in_time():
            self._launch()

    def stop(self) -> None:
        """Stop the server if it runs, and wait until it is gone.

        Raises EmbeddedPostgresError if it survives even the immediate stop.
        """
        postmaster = self._postmaster()
        if postmaster is None:
            return
        # Not by pg_ctl, which signals whatever process has the number in postmaster.pid by now.
        steps = [(signal.SIGINT, FAST_STOP_SECONDS), (signal.SIGQUIT, IMMEDIATE_STOP_SECONDS)]
        for number, seconds in steps[1:] if self.store.ephemeral else steps:
            with suppress(psutil.NoSuchProcess):
                postmaster.send_signal(number)
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                if not self._is_ours(postmaster):
                    return
                time.sleep(0.01)
        raise EmbeddedPostgresError(
            f"the server of {self.store.home} (pid {postmaster.pid}) does not stop"
        )

    def _answers(self) -> bool:
        where = [f"--host={self.store.socket_dir}", "--port=5432"]
        code, _ = self.store.call("pg_isready", "--quiet", "--timeout=5", *where)
        return code == 0

    def _answers_in_time(self) -> bool:
        """Wait while processes of this server live; return whether it answers in the end."""
        deadline = time.monotonic() + START_SECONDS
        while alive := [process for process in psutil.process_iter() if self._is_ours(process)]:
            if self._answers():
                return True
            if time.monotonic() > deadline:
                raise EmbeddedPostgresError(
                    f"the server of {self.store.home} (pid {alive[0].pid}) does not answer"
                )
            if self._postmaster() is None:
                # Backends outlive a killed postmaster. While they use its memory, none can start.
                for orphan in alive:
                    with suppress(psutil.NoSuchProcess):
                        orphan.send_signal(signal.SIGQUIT)
            time.sleep(0.05)
        return False

    def _postmaster(self) -> psutil.Process | None:
        pid = _recorded_pid(self.store.data / "postmaster.pid")
        with suppress(psutil.Error):
            process = psutil.Process(pid) if pid else None
            return process if process and self._is_ours(process) else None
        return None

    def _is_ours(self, process: psutil.Process) -> bool:
        """Whether a process is this store's: after a crash, a recorded pid may be another's."""
        try:
            if not process.name().startswith("postgres"):
                return False
            try:
                return os.path.samefile(process.cwd(), self.store.data)
            except psutil.AccessDenied:  # another account's, and root here lacks CAP_SYS_PTRACE
                return str(self.store.data) in process.cmdline()
        except (psutil.Error, OSError):
            return False

    def _launch(self) -> None:
        """Start the server; no process of it is alive."""
        for lock in (
            self.store.data / "postmaster.pid",
            self.store.socket_dir / f"{SOCKET_NAME}.lock",
        ):
            pid = _recorded_pid(lock)
            # PostgreSQL would take whatever process has that pid now for a postmaster.
            if pid is None or psutil.pid_exists(pid):
                lock.unlink(missing_ok=True)
        self.store.refresh()
        # pg_ctl goes through a shell. Its -D is relative, so that nothing in it can expand;
        # the one it hands on is absolute, so that `ps` and _is_ours see which store it is.
        handed_on = f"-D {shlex.quote(str(self.store.data))}"
        self.store.run(
            "pg_ctl", "start", "-D", "data", "-o", handed_on, "-w", "-t", str(START_SECONDS)
        )


def _recorded_pid(lock: Path) -> int | None:
    try:
        return abs(int(lock.read_bytes().split(b"\n", 1)[0]))
    except (OSError, ValueError):
        return None
