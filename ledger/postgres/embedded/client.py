"""A process as a client of a home: the first one starts the server, the last one stops it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from runfold.ledger.postgres.embedded.server import Server

MOST_TRIES: Final = 1_000
"""How often a home may be deleted between its making and its locking before that is an error."""


class Client:
    """A process as a client of a home: one shared lock, whatever in the process uses the server.

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
