"""The PostgreSQL server of the tests, chosen by the variable `RUNFOLD_TEST_POSTGRES`."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from runfold.ledger.postgres.embedded.postgres import temporary_postgres
from runfold.ledger.postgres.embedded.store import UNSAFE
from tests.support.server_folder import server_folder

# A small cache: to make and to drop a database, a server walks all of it. No vacuum but a test's
# own: its transactions hold back the feed, and its statistics change plans.
ROOM = {"max_connections": "200", "shared_buffers": "32MB", "autovacuum": "off"}


@dataclass(frozen=True)
class Server:
    """A running server: a superuser's libpq URL, and a name for people."""

    url: str
    name: str


@contextmanager
def postgres_server() -> Iterator[Server]:
    """Yield the server: `embedded`, the default, `docker`, or a superuser's URL."""
    choice = os.environ.get("RUNFOLD_TEST_POSTGRES") or "embedded"
    if choice == "embedded":
        with _embedded() as server:
            yield server
    elif choice == "docker":
        with _docker() as server:
            yield server
    elif choice.startswith("postgresql://"):
        yield Server(url=choice, name="external")
    else:
        raise ValueError(
            f"RUNFOLD_TEST_POSTGRES is {choice!r}: not embedded, docker or a postgresql:// URL"
        )


@contextmanager
def _embedded() -> Iterator[Server]:
    with temporary_postgres(ROOM, server_folder()) as postgres:
        yield Server(url=postgres.url(), name="embedded")


@contextmanager
def _docker() -> Iterator[Server]:
    # Imported late: the other choices need no Docker. `testcontainers.postgres` warns of
    # deprecation.
    from testcontainers.community.postgres import PostgresContainer

    image = os.environ.get("RUNFOLD_TEST_IMAGE") or "postgres:18-alpine"
    password = secrets.token_hex(8)
    container = PostgresContainer(
        image, username="postgres", password=password, dbname="postgres", driver=None
    )
    container.with_command(
        [word for name, value in (ROOM | UNSAFE).items() for word in ("-c", f"{name}={value}")]
    )
    with container:
        yield Server(url=container.get_connection_url(), name=f"docker {image}")
