"""The servers that a process has open, whatever in it uses them, and their end with the process."""

from __future__ import annotations

import atexit
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

from runfold.ledger.postgres.embedded.client import Client
from runfold.ledger.postgres.embedded.server import Server


class Registry:
    """The servers that this process has open; exit, SIGTERM and SIGHUP close them."""

    def __init__(self) -> None:
        self._clients: dict[Path, Client] = {}
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
            client = self._clients.get(server.store.home) or Client(server)
            client.join(server)
            self._clients[server.store.home] = client
            client.holders.add(holder)

    def leave(self, holder: object, server: Server) -> None:
        """Close the server for the holder, if it has it open."""
        with self._undisturbed():
            client = self._clients.get(server.store.home)
            if client is None or holder not in client.holders:
                return
            client.holders.remove(holder)
            if not client.holders:
                del self._clients[server.store.home]
                client.leave()

    def leave_all(self) -> None:
        """Close every server, even if one of them does not stop."""
        with self._undisturbed(), ExitStack() as leaving:
            while self._clients:
                leaving.callback(self._clients.popitem()[1].leave)

    def forget(self) -> None:
        """Begin anew in a forked child: the servers are the parent's, and the lock may be held."""
        while self._clients:
            self._clients.popitem()[1].disown()
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


registry = Registry()
atexit.register(registry.leave_all)
os.register_at_fork(after_in_child=registry.forget)
