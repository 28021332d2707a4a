"""The built-in PostgreSQL: one server per folder, shared by its clients, stopped by the last."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote

from runfold.ledger.errors import EmbeddedPostgresError
from runfold.ledger.postgres.embedded.registry import registry
from runfold.ledger.postgres.embedded.server import Server
from runfold.ledger.postgres.embedded.store import Store

TEMPORARY: Final = Path("/tmp")  # noqa: S108  a folder of its own is made in it
"""Not TMPDIR: a socket's path must stay short, and the server's account must reach it."""


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
            registry.enter(self, self._server)
        except OSError as error:
            raise EmbeddedPostgresError(
                f"cannot use {self._store.home}: {error.strerror or error}; set RUNFOLD_HOME to a "
                "folder that this account may make or write to"
            ) from error
        return self

    def close(self) -> None:
        """Leave the server, and stop it if no other client has it open; may be repeated.

        Raises EmbeddedPostgresError if the server does not stop.
        """
        registry.leave(self, self._server)

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
