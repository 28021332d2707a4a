"""Connections: from a URL to a pool that is known to lead to a usable database."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

import asyncpg

from runfold.ledger.errors import (
    DatabaseUnavailable,
    InvalidValue,
    NewerSchema,
    NotMigrated,
    UnsupportedServer,
)
from runfold.ledger.postgres.errors import translated

if (
    TYPE_CHECKING
):  # SQLAlchemy takes a second to import; who hands a connection of it over has done so
    from asyncpg.pool import PoolConnectionProxy
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

# The driver's pool tells of a server that is away by tracebacks, which Python prints for a program that configures no
# logging. The ledger raises it as an error, and duties log it in a line.
logging.getLogger("asyncpg").addHandler(logging.NullHandler())

OLDEST_SERVER: Final = 15
FAILURES: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What the driver raises; InternalClientError when a connection dies just before a statement is sent."""
PREPARED: Final = 100
"""Statements that a connection keeps prepared."""
RELEASE_SECONDS: Final = 2.0
Connection: TypeAlias = (
    "asyncpg.Connection[Any] | PoolConnectionProxy[Any] | AsyncConnection | AsyncSession"
)
"""What a caller may hand over to have a command join a transaction of its own."""
Pool: TypeAlias = "asyncpg.Pool[Any]"


async def open_pool(url: str, size: int, *, prepared: bool = True) -> Pool:
    """Open a pool of at most `size` connections; raise DatabaseUnavailable if no connection can be had.

    `prepared`: connections keep prepared statements, which only a pooler that knows of them can pass on.
    """
    try:
        return await asyncpg.create_pool(
            driver_url(url),
            min_size=1,
            max_size=size,
            timeout=10,
            reset=_keep,
            statement_cache_size=PREPARED if prepared else 0,
            server_settings={"application_name": "runfold", "TimeZone": "UTC"},
        )
    except (OSError, ValueError, TimeoutError, *FAILURES) as error:
        raise _unreachable(url, error) from error


async def connect(
    url: str, application_name: str, *, prepared: bool = True
) -> asyncpg.Connection[Any]:
    """Open a connection of its own, outside of any pool; raise DatabaseUnavailable if it cannot be had."""
    settings = {"application_name": application_name, "TimeZone": "UTC"}
    try:
        return await asyncpg.connect(
            driver_url(url),
            timeout=10,
            server_settings=settings,
            statement_cache_size=PREPARED if prepared else 0,
        )
    except (OSError, ValueError, TimeoutError, *FAILURES) as error:
        raise _unreachable(url, error) from error


def _unreachable(url: str, error: BaseException) -> DatabaseUnavailable:
    # A URL that makes no sense, a login that is refused, a database that does not exist.
    wrong = isinstance(error, ValueError) or (getattr(error, "sqlstate", None) or "")[:2] in {
        "28",
        "3D",
    }
    return DatabaseUnavailable(shown(url), str(error) or type(error).__name__, temporary=not wrong)


async def _keep(_: Any) -> None:
    """Leave a returned connection as it is: no statement here changes its session, and a reset is a round trip."""


async def check(pool: Pool, revisions: Sequence[str]) -> None:
    """Raise unless the server is recent enough and its schema is this code's.

    Raises UnsupportedServer, NotMigrated or NewerSchema.
    """
    number, found = await schema_revision(pool)
    if number // 10_000 < OLDEST_SERVER:
        raise UnsupportedServer(f"{number // 10_000}.{number % 10_000}", OLDEST_SERVER)
    if found == revisions[-1]:
        return
    if found is None or found in revisions:
        raise NotMigrated(found, revisions[-1])
    raise NewerSchema(found, revisions[-1])


async def schema_revision(pool: Pool) -> tuple[int, str | None]:
    """Give the server's version number and the schema revision of the database, if it has one."""
    [server] = await fetch(
        pool,
        "SELECT current_setting('server_version_num')::int AS number, to_regclass('ledger.alembic_version') AS found",
    )
    if server["found"] is None:
        return server["number"], None
    [revision] = await fetch(pool, "SELECT version_num FROM ledger.alembic_version")
    return server["number"], revision["version_num"]


async def fetch(source: Pool | Connection, sql: str, *args: Any) -> Sequence[Mapping[str, Any]]:
    """Run one statement and give its rows; database errors come out as ledger errors."""
    try:
        if isinstance(source, asyncpg.Pool):
            return await _borrowing(source, sql, args)
        if isinstance(source, asyncpg.Connection | asyncpg.pool.PoolConnectionProxy):
            return await source.fetch(sql, *args)
        return await _joining(source, sql, args)
    except (*FAILURES, OSError, TimeoutError, OverflowError) as error:
        if isinstance(error, OverflowError) or _is_of_the_driver(error):
            raise InvalidValue("value", args, f"does not fit its column: {error}") from error
        raise translated(error, args) from error


def _is_of_the_driver(error: BaseException) -> bool:
    """Tell whether the driver itself would not send a value."""
    return isinstance(error, asyncpg.InterfaceError) and isinstance(error, ValueError)


async def _joining(
    source: AsyncConnection | AsyncSession, sql: str, args: Sequence[Any]
) -> Sequence[Mapping[str, Any]]:
    from sqlalchemy import exc
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

    if not isinstance(source, AsyncConnection | AsyncSession):
        raise InvalidValue(
            "connection",
            source,
            "must be an asyncpg connection, or SQLAlchemy's AsyncConnection or AsyncSession",
        )
    try:
        connection = await source.connection() if isinstance(source, AsyncSession) else source
        return (await connection.exec_driver_sql(sql, args)).mappings().all()  # type: ignore[return-value]  # RowMapping is a Mapping of str here
    except exc.DBAPIError as error:
        raise translated(getattr(error.orig, "__cause__", None) or error, args) from error
    except exc.TimeoutError as error:  # of the caller's pool
        raise DatabaseUnavailable("the server", str(error)) from error
    except exc.InvalidRequestError as error:  # it is closed, or its transaction has failed
        raise InvalidValue("connection", source, f"cannot be used: {error}") from error


async def _borrowing(pool: Pool, sql: str, args: Sequence[Any]) -> Sequence[Mapping[str, Any]]:
    connection = await pool.acquire()
    try:
        return await connection.fetch(sql, *args)
    finally:
        # Whoever is cancelled waits for the server to say so. One that says nothing loses the connection instead.
        with suppress(TimeoutError):
            await pool.release(connection, timeout=RELEASE_SECONDS)


def driver_url(url: str) -> str:
    """Write the URL as asyncpg takes it."""
    parts = _parsed(url)
    return _unsplit(parts._replace(scheme="postgresql"))


def sqlalchemy_url(url: str) -> str:
    """Write the URL as SQLAlchemy takes it."""
    parts = _parsed(url)
    return _unsplit(parts._replace(scheme="postgresql+asyncpg"))


def shown(url: str) -> str:
    """Write the URL for people: without its password, wherever it stands."""
    without = re.sub(r"(://[^:/?#@]*):.*@", r"\1:***@", url)
    return unquote(re.sub(r"([?&](?:password|sslpassword|passfile)=)[^&]*", r"\1***", without))


def _parsed(url: str) -> SplitResult:
    parts = urlsplit(url)
    if parts.scheme not in {"postgresql", "postgres", "postgresql+asyncpg"}:
        raise InvalidValue(
            "database URL",
            shown(url),
            "must look like postgresql://user@host/database, or be left out for the built-in one",
        )
    return parts


def _unsplit(parts: SplitResult) -> str:
    # urlunsplit drops the empty authority that a socket URL may have
    return (
        urlunsplit(parts)
        if parts.netloc
        else f"{parts.scheme}://{urlunsplit(parts._replace(scheme=''))}"
    )
