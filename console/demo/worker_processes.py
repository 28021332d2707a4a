"""The demo's worker processes: started, killed, and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

STOP_SECONDS: Final = 5.0
HURRIED_SECONDS: Final = 0.5
POOL_SIZE: Final = 3


class WorkerProcesses:
    """Worker processes of one project; they end with the block, or with this process."""

    def __init__(self, url: str, project: str, count: int) -> None:
        """Prepare workers that open the database at `url`; entering the block starts them."""
        # In the environment, not on the command line: a URL may hold a password.
        self._environment = {**os.environ, "RUNFOLD_URL": url, "RUNFOLD_POOL_SIZE": str(POOL_SIZE)}
        self._project = project
        self.worker_ids = [f"worker-{number}" for number in range(1, count + 1)]
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def freeze(self, worker_id: str) -> None:
        """Stop a worker where it is, until `thaw`."""
        self._processes[worker_id].send_signal(signal.SIGSTOP)

    def thaw(self, worker_id: str) -> None:
        """Continue a frozen worker."""
        self._processes[worker_id].send_signal(signal.SIGCONT)

    def kill(self, worker_id: str) -> int:
        """Kill a worker with SIGKILL, as a machine's failure would, and return its process id."""
        process = self._processes.pop(worker_id)
        process.kill()
        _forget(process)
        return process.pid

    def ended(self) -> dict[str, int]:
        """Return the workers that ended unasked, with their exit codes."""
        codes = {worker_id: process.poll() for worker_id, process in self._processes.items()}
        return {worker_id: code for worker_id, code in codes.items() if code is not None}

    def __enter__(self) -> Self:
        """Start the workers."""
        try:
            for worker_id in self.worker_ids:
                self._processes[worker_id] = self._start(worker_id)
        except BaseException:
            self._stop(HURRIED_SECONDS)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the workers: in order, or in a hurry if the block failed."""
        self._stop(STOP_SECONDS if kind is None else HURRIED_SECONDS)

    def _start(self, worker_id: str) -> subprocess.Popen[bytes]:
        # A new program, because a fork of a process with threads and sockets is not whole. In its
        # own session, so that Ctrl-C reaches this process alone, which stops the workers in order.
        return subprocess.Popen(  # noqa: S603  our own interpreter and module
            [
                sys.executable,
                "-P",
                "-W",
                "ignore",
                "-m",
                "runfold.console.demo.worker",
                self._project,
                worker_id,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env=self._environment,
            start_new_session=True,
        )

    def _stop(self, seconds: float) -> None:
        for process in self._processes.values():
            _close_input(process)
        deadline = time.monotonic() + seconds
        while self._processes:
            _, process = self._processes.popitem()
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(deadline - time.monotonic(), 0))
            process.kill()
            _forget(process)


def _forget(process: subprocess.Popen[bytes]) -> None:
    _close_input(process)
    process.wait()


def _close_input(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()
