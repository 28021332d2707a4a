"""The schema's life: what revision a database has, and bringing it to this code's."""

from __future__ import annotations

from functools import cache, partial
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Final

from runfold.ledger.postgres.connections import FAILURES, connect
from runfold.ledger.postgres.errors import translated
from runfold.ledger.postgres.installation import (
    is_intact,
    record_fingerprint,
    refuse_unfit,
)
from runfold.ledger.postgres.locks import lock_limit, retry_on_lock

if TYPE_CHECKING:  # every command asks for the schema's name and digest, few migrate
    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

SCHEMA: Final = "ledger"

OBJECTS: Final = (
    "values/now",
    "values/uuid7",
    "values/uuid7_floor",
    "views/archive",
    "views/role_member",
    "values/payload_hash",
    "values/salt_seed",
    "values/event_hash",
    "values/command_text",
    "compiled/legal",
    "guards/transition_type",
    "guards/check_texts",
    "guards/check_tags",
    "guards/check_types",
    "guards/content_problem",
    "guards/check_content",
    "guards/content_part",
    "views/run",
    "views/entry",
    "compiled/rebuild_run_state",
    "compiled/fold_events",
    "compiled/drift_run_state",
    "compiled/drift_events",
    "views/state_at",
    "views/history",
    "views/read_run",
    "compiled/fold_run_state",
    "guards/refuse_change",
    "guards/fold_kind_state",
    "guards/triggers",
    "partitions/attach_partition",
    "partitions/make_partitions",
    "operations/lock_runs",
    "operations/record_keys",
    "operations/submit_keys",
    "operations/submit",
    "operations/kind_rooms",
    "operations/claim",
    "operations/heartbeat",
    "guards/may_not_decide",
    "operations/transition",
    "operations/requeue",
    "operations/cancel",
    "operations/append",
    "operations/signal",
    "operations/closings",
    "operations/commands",
    "operations/refuse",
    "operations/reap",
    "operations/change_kind",
    "guards/refuse_version",
    "compiled/check_derived",
    "projections/check_projection_name",
    "projections/make_projection_table",
    "projections/publish_projection",
    "projections/exchange_projection_table",
    "projections/drop_projection_tables",
    "feed/feed_guard",
    "feed/feed_passed",
    "feed/feed_whole",
    "feed/feed_cut",
    "feed/feed_moment",
    "feed/feed_known",
    "feed/feed_now",
    "feed/feed_next",
    "feed/feed_page",
    "feed/feed_rebase",
    "guards/grants",
)
"""The files of `ledger/sql`, in the order in which they can be installed."""


def sql(name: str) -> str:
    """Read one file of `ledger/sql`."""
    return (files("runfold.ledger") / "sql" / f"{name}.sql").read_text()


@cache
def digest() -> str:
    """Name the functions of this code: a comment on the schema says which ones a database has."""
    return "functions sha256:" + sha256("".join(sql(name) for name in OBJECTS).encode()).hexdigest()


@cache
def revisions() -> tuple[str, ...]:
    """Return this code's schema revisions, oldest first: the numbers of the migrations."""
    return tuple(
        sorted(path.name.split("_")[0] for path in (_migrations() / "versions").glob("[0-9]*_*.py"))
    )


def head() -> str:
    """Name the schema revision that this code needs."""
    return revisions()[-1]


async def upgrade(url: str) -> None:
    """Bring a database to this code's schema, in one transaction; every event stays.

    Concurrent upgrades wait for each other. What is as this code left it is not installed again.
    Each lock is waited for two seconds at most, in five tries, so that nobody waits behind the
    upgrade for longer. Raises ConfigurationError for a database that no ledger can be in or when
    the owner must be given roles first, LockTimeout, AccessDenied or DatabaseUnavailable; then
    nothing has changed.
    """
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlalchemy.pool import NullPool

    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=partial(connect, url, "runfold upgrade"),
        poolclass=NullPool,
    )
    try:
        await retry_on_lock(partial(_upgrade_once, engine), "the schema's tables")
    except FAILURES as error:
        raise translated(error) from error
    finally:
        await engine.dispose()


async def _upgrade_once(engine: AsyncEngine) -> None:
    from sqlalchemy.exc import DBAPIError

    try:
        async with engine.begin() as connection:
            await upgrade_on(connection)
    except DBAPIError as error:  # its cause is the driver's own
        cause = getattr(error.orig, "__cause__", None)
        raise (cause if isinstance(cause, FAILURES) else error) from error


async def upgrade_on(connection: AsyncConnection) -> None:
    """Upgrade on an open SQLAlchemy connection, within its transaction."""
    from sqlalchemy import text

    await connection.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended('ledger.upgrade', 0))")
    )
    await refuse_unfit(connection)
    await connection.execute(text(lock_limit()))
    await connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
    revision = None
    if await connection.scalar(text("SELECT to_regclass('ledger.alembic_version') IS NOT NULL")):
        revision = await connection.scalar(text("SELECT version_num FROM ledger.alembic_version"))
    if revision == head() and await is_intact(connection, digest()):
        await connection.execute(text("SELECT ledger.make_partitions()"))
        return
    if revision is not None:  # in the order in which writers lock them
        for table in ("payload", "event", "run_state"):
            await connection.execute(
                text(f"LOCK TABLE {SCHEMA}.{table} IN SHARE ROW EXCLUSIVE MODE")
            )
    await connection.run_sync(_migrate)
    await record_fingerprint(connection)


def _migrate(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_migrations()).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, head())


def install(connection: Connection) -> None:
    """Install every function, view, trigger and grant of this code, and the partitions ahead."""
    execute_script(
        connection,
        "\n".join(sql(name) for name in OBJECTS)
        + f"\nSELECT ledger.make_partitions();\nCOMMENT ON SCHEMA {SCHEMA} IS '{digest()}';",
    )


def execute_script(connection: Connection, script: str) -> None:
    """Execute several statements by the driver's own call; colons and percent signs stay."""
    driver = connection.connection.dbapi_connection
    driver.run_async(lambda asyncpg: asyncpg.execute(script))  # type: ignore[union-attr]


def _migrations() -> Path:
    packaged = Path(str(files("runfold.ledger") / "_migrations"))
    return packaged if packaged.is_dir() else packaged.resolve().parents[1] / "migrations"
