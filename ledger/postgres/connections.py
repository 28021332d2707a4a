"""Connections: from a URL to a pool, and one statement over it."""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, cast

import asyncpg

from runfold.ledger.errors import AccessDenied, DatabaseUnavailable, InvalidValue
from runfold.ledger.postgres import array_types
from runfold.ledger.postgres.errors import sentence, translated
from runfold.ledger.postgres.hosts import connect_to_any
from runfold.ledger.postgres.presenting import RELEASE_SECONDS, Presenting
from runfold.ledger.postgres.urls import KeepAlive, parse, shown
from runfold.ledger.settings import STATEMENT_SECONDS

if TYPE_CHECKING:  # SQLAlchemy takes a second to import
    from asyncpg.pool import PoolConnectionProxy
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

# The driver's pool logs a traceback for a server that is away, which Python prints for a program
# that configures no logging. The ledger raises the same as an error, and duties log a line.
logging.getLogger("asyncpg").addHandler(logging.NullHandler())

FAILURES: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What the driver raises; InternalClientError when a connection dies as a statement is sent."""
PINNED: Final = {
    "search_path": "pg_catalog, pg_temp",
    "row_security": "on",
    "array_nulls": "on",
    "standard_conforming_strings": "on",
    "default_transaction_isolation": "read committed",
}
"""What every connection asks for: no setting of a role or a database changes what the ledger's
statements mean. See docs/decisions/0045."""
PINNED_THROUGH_POOLERS: Final = {"standard_conforming_strings": "on"}
"""What PgBouncer keeps for each client; it refuses the others."""
OWN_PROJECT: Final = "runfold.project"
"""The setting by which policies try a session's own project first: see `projects_seen.sql`."""
PREPARED: Final = 100
"""Statements that a connection keeps prepared."""
Connection: TypeAlias = (
    "asyncpg.Connection[Any] | PoolConnectionProxy[Any] | AsyncConnection | AsyncSession"
)
"""What a caller may hand over to have a command join a transaction of its own."""
Pool: TypeAlias = "asyncpg.Pool[Any]"
Opened = TypeVar("Opened")


class NewConnections:
    """How many connections this process has opened: a new one may lead to another server."""

    count = 0


async def open_pool(
    url: str,
    size: int,
    *,
    project: str = "",
    prepared: bool = True,
    deadline: float = STATEMENT_SECONDS,
) -> Pool:
    """Open a pool of at most `size` connections.

    `project`: the one that most statements are about. `prepared`: connections keep prepared
    statements, which only a pooler that knows of them can pass on. `deadline`: the seconds that a
    statement may take. Raises InvalidValue for the URL, DatabaseUnavailable if no connection can be
    had.
    """
    address = parse(url)

    async def init(connection: asyncpg.Connection[Any]) -> None:
        _begin(connection, address.keep_alive)

    async def create(pinned: Mapping[str, str]) -> Pool:
        return await asyncpg.create_pool(
            **address.arguments("runfold", pinned),
            connect=cast("Any", connect_to_any),
            min_size=1,
            max_size=size,
            init=init,
            reset=_keep,
            command_timeout=deadline,
            statement_cache_size=PREPARED if prepared else 0,
        )

    try:
        return await _pinned(create, project)
    except (OSError, ValueError, TimeoutError, *FAILURES) as error:
        raise _unreachable(url, error) from error


async def connect(
    url: str,
    application_name: str,
    *,
    prepared: bool = True,
    deadline: float | None = STATEMENT_SECONDS,
) -> asyncpg.Connection[Any]:
    """Open a connection outside of any pool; `prepared`, `deadline` as in `open_pool`.

    A deadline of None is none: for statements whose duration grows with the tables.

    Raises InvalidValue for the URL, DatabaseUnavailable if the connection cannot be had.
    """
    address = parse(url)

    async def open_one(pinned: Mapping[str, str]) -> asyncpg.Connection[Any]:
        return await connect_to_any(
            **address.arguments(application_name, pinned),
            command_timeout=deadline,
            statement_cache_size=PREPARED if prepared else 0,
        )

    try:
        connection = await _pinned(open_one)
    except (OSError, ValueError, TimeoutError, *FAILURES) as error:
        raise _unreachable(url, error) from error
    _begin(connection, address.keep_alive)
    return connection


async def _pinned(
    opening: Callable[[Mapping[str, str]], Awaitable[Opened]], project: str = ""
) -> Opened:
    """Open with what is pinned, or with less of it through a pooler that refuses the rest.

    An operator or function that somebody planted in another schema fits a statement's types better
    than PostgreSQL's own, and would run with this login's rights.
    """
    pinned = {**PINNED, OWN_PROJECT: project}
    try:
        return await opening(pinned)
    except asyncpg.ProtocolViolationError as error:
        if not any(name in str(error) for name in pinned):
            raise
        return await opening(PINNED_THROUGH_POOLERS)


def _begin(connection: asyncpg.Connection[Any], keep: KeepAlive) -> None:
    _keep_alive(connection, keep)
    array_types.tell(connection)
    NewConnections.count += 1


def _keep_alive(connection: asyncpg.Connection[Any], keep: KeepAlive) -> None:
    """Make the kernel end a connection whose peer is silent, as libpq's parameters ask."""
    # There is no public way to the socket.
    transport: Any = connection._transport  # type: ignore[attr-defined]  # noqa: SLF001
    own = transport.get_extra_info("socket")
    if own is None or own.family == socket.AF_UNIX or not keep.enabled:
        return
    own.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", keep.idle),
        ("TCP_KEEPINTVL", keep.interval),
        ("TCP_KEEPCNT", keep.count),
        ("TCP_USER_TIMEOUT", keep.user_timeout),
    ):
        if hasattr(socket, name):
            own.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _unreachable(url: str, error: BaseException) -> DatabaseUnavailable:
    # A URL that makes no sense, a login that is refused, a database that does not exist.
    wrong = isinstance(error, ValueError) or (getattr(error, "sqlstate", None) or "")[:2] in {
        "28",
        "3D",
    }
    if getattr(error, "sqlstate", None) == "42501":  # the right to connect, which a grant brings
        return DatabaseUnavailable(shown(url), f"{sentence(error)}: {AccessDenied.GRANTS}")
    silent = type(error).__name__
    if isinstance(error, TimeoutError):
        seconds = parse(url).arguments("")["timeout"]
        silent = f"no answer within {seconds:g} s, which `?connect_timeout=` of the URL sets"
    asked = ""
    if isinstance(error, ConnectionRefusedError | FileNotFoundError):
        asked = "; does PostgreSQL listen there?"
    elif getattr(error, "sqlstate", None) == "28P01":
        asked = "; the password comes from the URL, else from PGPASSWORD, else from ~/.pgpass"
    return DatabaseUnavailable(shown(url), (str(error) or silent) + asked, temporary=not wrong)


async def _keep(_: Any) -> None:
    """Leave a returned connection as it is: no statement here changes its session."""


async def fetch(source: Pool | Connection, sql: str, *args: Any) -> Sequence[Mapping[str, Any]]:
    """Run one statement and return its rows; database errors come out as ledger errors."""
    try:
        if isinstance(source, asyncpg.Pool):
            return await _borrowing(source, sql, args)
        if isinstance(source, Presenting):
            return await source.rows(sql, args)
        if isinstance(source, asyncpg.Connection | asyncpg.pool.PoolConnectionProxy):
            return await source.fetch(sql, *args)
        return await _joining(source, sql, args)
    except (*FAILURES, OSError, TimeoutError, OverflowError) as error:
        if isinstance(error, OverflowError) or _is_of_the_driver(error):
            raise InvalidValue("value", args, f"does not fit its column: {error}") from error
        raise translated(error, args) from error


def _is_of_the_driver(error: BaseException) -> bool:
    """Whether the driver itself refused to send a value."""
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
        rows = (await connection.exec_driver_sql(sql, args)).mappings().all()
        return cast("Sequence[Mapping[str, Any]]", rows)
    except exc.DBAPIError as error:
        raise translated(getattr(error.orig, "__cause__", None) or error, args) from error
    except exc.TimeoutError as error:  # of the caller's pool
        raise DatabaseUnavailable(None, str(error)) from error
    except exc.InvalidRequestError as error:  # it is closed, or its transaction has failed
        raise InvalidValue("connection", source, f"cannot be used: {error}") from error


async def _borrowing(pool: Pool, sql: str, args: Sequence[Any]) -> Sequence[Mapping[str, Any]]:
    connection = await pool.acquire()
    try:
        return await connection.fetch(sql, *args)
    finally:
        # A cancelled caller waits for the server's answer; a silent one loses the connection.
        with suppress(TimeoutError):
            await pool.release(connection, timeout=RELEASE_SECONDS)
