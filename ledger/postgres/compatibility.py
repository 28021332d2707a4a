"""Whether a database works with this code: its server, its encoding and its schema."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from runfold.ledger.errors import (
    ConfigurationError,
    NewerSchema,
    NotMigrated,
    UnsupportedServer,
)
from runfold.ledger.postgres.connections import Pool, fetch
from runfold.ledger.postgres.revisions import OLDEST_CODE

ENCODING: Final = "UTF8"
OLDEST_SERVER: Final = 15
FIXED_MINORS: Final = {15: 18, 16: 14, 17: 10, 18: 4}
"""The first release of each version in which any SQL user cannot take the server over.

CVE-2026-6473; see the release notes of PostgreSQL 18.4.
"""

_SERVER: Final = """
SELECT current_setting('server_version_num')::int AS number,
  current_setting('server_encoding') AS encoding
"""
_MIGRATED: Final = f"{_SERVER}, version_num AS revision FROM ledger.alembic_version"


class Server(NamedTuple):
    """What must fit this code: the version as a number, the encoding, and the schema's revision."""

    number: int
    encoding: str
    revision: str | None


async def check(pool: Pool, revisions: Sequence[str]) -> None:
    """Raise unless the server is recent enough and its schema works with this code.

    That is the schema of this code's newest revision, or a newer one whose migration names an
    oldest code that this code is not older than. Raises UnsupportedServer, ConfigurationError for
    another encoding than UTF8, NotMigrated or NewerSchema.
    """
    number, encoding, revision = await server_of(pool)
    if encoding != ENCODING:
        raise wrong_encoding(encoding)
    if number // 10_000 < OLDEST_SERVER:
        raise UnsupportedServer(f"{number // 10_000}.{number % 10_000}", OLDEST_SERVER)
    if revision == revisions[-1]:
        return
    if revision is None or revision in revisions:
        raise NotMigrated(revision, revisions[-1])
    oldest = await oldest_code(pool)
    if oldest not in revisions:
        raise NewerSchema(revision, revisions[-1], oldest)


async def oldest_code(pool: Pool) -> str | None:
    """Return the oldest revision whose code works with the database's schema."""
    [row] = await fetch(pool, OLDEST_CODE)
    oldest: str | None = row["oldest"]
    return oldest


async def server_of(pool: Pool) -> Server:
    """Return what the server is, and the schema revision of the database, if it has one."""
    try:  # in one statement, for which every command waits
        migrated = await fetch(pool, _MIGRATED)
    except NotMigrated:
        migrated = []
    if migrated:
        return Server(**migrated[0])
    [server] = await fetch(pool, _SERVER)
    return Server(**server, revision=None)


def wrong_encoding(encoding: str) -> ConfigurationError:
    """Return the error for a database in another encoding."""
    return ConfigurationError(
        f"the database's encoding is {encoding}, a ledger needs {ENCODING}: "
        f"CREATE DATABASE ... ENCODING '{ENCODING}' TEMPLATE template0"
    )
