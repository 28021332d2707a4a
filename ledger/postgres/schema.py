"""The schema's life: what revision a database has, and bringing it to this code's."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, partial
from hashlib import sha256
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

from runfold.ledger.errors import NewerSchema
from runfold.ledger.postgres import revisions
from runfold.ledger.postgres.connections import FAILURES, connect
from runfold.ledger.postgres.errors import translated
from runfold.ledger.postgres.indexes import build_indexes, definitions
from runfold.ledger.postgres.installation import (
    is_intact,
    record_installed,
    recorded_objects,
    refuse_older_tables,
    refuse_unfit,
)
from runfold.ledger.postgres.locks import lock_limit, retry_on_lock
from runfold.ledger.postgres.migrating import only_functions_follow, prepared
from runfold.ledger.postgres.server_roles import make_roles, open_database, ungrantable_roles
from runfold.ledger.postgres.table_locks import TableLocks
from runfold.ledger.postgres.upgrade_lock import upgrade_lock

if TYPE_CHECKING:  # every command asks for the schema's name and digest, few migrate
    from sqlalchemy.ext.asyncio import AsyncConnection

SCHEMA: Final = "ledger"

OBJECTS: Final = (
    "values/clock",
    "values/now",
    "values/uuid7",
    "values/uuid7_floor",
    "values/uuid7_month",
    "views/archive",
    "views/role_member",
    "values/payload_hash",
    "values/salt_seed",
    "sign_in/session_credential",
    "sign_in/token_credential",
    "access/credential",
    "values/event_hash",
    "values/command_text",
    "compiled/legal",
    "compiled/is_type",
    "guards/transition_type",
    "guards/check_count",
    "guards/check_times",
    "guards/check_costs",
    "guards/check_corrections",
    "guards/check_workers",
    "guards/check_given",
    "guards/check_kind",
    "guards/check_due_keys",
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
    "access/is_owner",
    "access/has_right",
    "access/check_grants",
    "access/check_snapshot",
    "guards/check_project",
    "access/check_access",
    "access/projects_with",
    "access/projects_seen",
    "access/channel",
    "access/speaker",
    "access/check_my_access",
    "sign_in/use_token",
    "sign_in/begin_session",
    "sign_in/sign_in_by_token",
    "sign_in/note_use",
    "sign_in/sign_in_by_password",
    "sign_in/sign_in_by_provider",
    "sign_in/password_method",
    "sign_in/end_session",
    "control/control_hash",
    "control/holders",
    "control/lock_control",
    "control/lock_row",
    "control/append_control",
    "control/control_subject",
    "control/record_control",
    "access/change_connect",
    "access/login_limits",
    "access/limit_login",
    "access/change_access",
    "access/change_role",
    "sign_in/change_token",
    "sign_in/change_user",
    "access/note_reads",
    "access/note_verify",
    "access/drop_reads",
    "views/state_at",
    "views/history",
    "views/read_run",
    "views/read_runs",
    "compiled/fold_run_state",
    "guards/refuse_change",
    "control/keep_control_head",
    "guards/fold_kind_state",
    "guards/is_replicated",
    "guards/triggers",
    "partitions/attach_partition",
    "partitions/make_partitions",
    "partitions/begin_work",
    "partitions/end_work",
    "partitions/ensure_months",
    "operations/lock_runs",
    "operations/record_keys",
    "operations/submit_keys",
    "operations/submit",
    "marks/newest_mark",
    "marks/leases",
    "marks/parked",
    "marks/cancels",
    "marks/marks_hold",
    "marks/sweep_start",
    "marks/next_claim_marks",
    "marks/next_sweep_marks",
    "marks/move_low_water",
    "operations/kind_rooms",
    "operations/await_kinds",
    "operations/await_turn",
    "operations/claimable",
    "marks/add_low_marks",
    "operations/claim_ranges",
    "operations/claim_rest",
    "operations/claim",
    "operations/heartbeat",
    "guards/check_request",
    "operations/transition",
    "operations/requeue",
    "operations/cancel",
    "operations/append",
    "guards/person",
    "guards/newest_request",
    "guards/submitter_problem",
    "guards/decider_problem",
    "guards/decision_problem",
    "guards/note_refusal",
    "operations/decide",
    "operations/signal",
    "operations/closings",
    "operations/commands",
    "operations/refuse",
    "operations/keep_time",
    "operations/nothing_begun",
    "operations/uncharged_leases",
    "operations/reap",
    "operations/next_due",
    "operations/parked_runs",
    "operations/change_kind",
    "operations/put_schedule",
    "operations/change_schedule",
    "operations/drop_schedule",
    "operations/advance_schedule",
    "operations/change_view",
    "operations/snooze",
    "guards/refuse_version",
    "compiled/check_derived",
    "projections/check_projection_name",
    "projections/make_projection_table",
    "projections/publish_projection",
    "projections/exchange_projection_table",
    "projections/note_rebuild",
    "projections/drop_projection_tables",
    "projections/forget_aside",
    "feed/check_cluster",
    "feed/feed_passed",
    "feed/check_months_read",
    "feed/feed_cut",
    "feed/feed_moment",
    "feed/newest_events",
    "feed/check_moment",
    "feed/feed_now",
    "feed/feed_next",
    "feed/feed_page",
    "feed/feed_rebase",
    "webhooks/change_webhook",
    "webhooks/webhook_duties",
    "webhooks/check_checkpoint",
    "webhooks/queue_deliveries",
    "webhooks/forget_deliveries",
    "webhooks/due_deliveries",
    "webhooks/record_attempt",
    "webhooks/resend_delivery",
    "access/policy_rules",
    "access/policies",
    "access/statistics",
    "control/adopt",
    "feed/feed_start",
    "access/close_database",
    "guards/grants",
)
"""The files of `ledger/sql`, in the order in which they can be installed."""

ALWAYS: Final = frozenset(
    {
        "access/policies",
        "access/statistics",
        "access/close_database",
        "feed/feed_start",
        "guards/grants",
    }
)
"""The files that look at the database and do what is missing: each upgrade executes them."""

INDEXES: Final[tuple[str, ...]] = ()
"""The files of `ledger/sql/indexes`, by their names: built concurrently after every upgrade.

An index that changes gets another name, and a migration drops the old one.
"""


def sql(name: str) -> str:
    """Read one file of `ledger/sql`."""
    return (files("runfold.ledger") / "sql" / f"{name}.sql").read_text(encoding="utf-8")


@cache
def digest() -> str:
    """Name the functions of this code: a comment on the schema says which ones a database has."""
    texts = [*map(sql, OBJECTS), *_later_indexes()]
    return "functions sha256:" + sha256("".join(texts).encode()).hexdigest()


def object_digest(name: str) -> str:
    """Return a short digest of an object's file."""
    return sha256(sql(name).encode()).hexdigest()[:16]


def indexes() -> tuple[str, ...]:
    """Return the definitions of the indexes that are built after the upgrade's transaction.

    Those that the migrations made are among them: somebody may have dropped one.
    """
    scripts = sorted((revisions.migrations() / "versions").glob("*.sql"))
    made = (text for script in scripts for text in definitions(script.read_text(encoding="utf-8")))
    return (*made, *_later_indexes())


def _later_indexes() -> tuple[str, ...]:
    return tuple(sql(f"indexes/{name}") for name in INDEXES)


@dataclass(frozen=True, slots=True)
class Upgrade:
    """What an upgrade did beside installing the schema."""

    built_indexes: tuple[str, ...] = ()
    ungrantable_roles: tuple[str, ...] = ()
    """Roles of the server that the owner of the ledger may not grant to logins."""
    open_database: str | None = None
    """The database, if every login of the server may connect to it; else None."""


async def upgrade(url: str) -> Upgrade:
    """Bring a database to this code's schema, in one transaction; every event stays.

    Concurrent upgrades wait for each other. What is as this code left it is not installed again:
    an upgrade that only replaces functions locks no table. A newer schema that works with this
    code is left as it is. Any other locks all tables at once, in five tries, and waits two seconds
    at most for the first and half a second for the rest. Indexes that are missing or invalid are
    built after the transaction, beside everybody. Raises ConfigurationError for a database that
    no ledger can be in, behind a pooler, or when the owner must be given roles first, NewerSchema,
    LockTimeout, AccessDenied or DatabaseUnavailable; then nothing has changed but the server's
    roles and indexes.
    """
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlalchemy.pool import NullPool

    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=partial(connect, url, "runfold upgrade", deadline=None),
        poolclass=NullPool,
    )
    try:
        keeper = await connect(url, "runfold upgrade", deadline=None)
        try:
            async with upgrade_lock(keeper), engine.connect() as connection:
                return await _upgrade_alone(connection)
        finally:
            await keeper.close()
    except (DBAPIError, *FAILURES) as error:
        raise translated(_of_the_driver(error)) from error
    finally:
        await engine.dispose()


async def _upgrade_alone(connection: AsyncConnection) -> Upgrade:
    driver: Any = (await connection.get_raw_connection()).driver_connection
    async with connection.begin():
        await refuse_unfit(connection)
    await retry_on_lock(partial(make_roles, driver), "the server's roles")
    install = partial(_migrate_and_install, connection, TableLocks())
    if not await retry_on_lock(install, "the schema's tables"):
        return Upgrade()
    build = partial(build_indexes, driver, indexes())
    built = await retry_on_lock(build, "a table that gains an index")
    return Upgrade(built, await ungrantable_roles(driver), await open_database(driver))


async def _migrate_and_install(connection: AsyncConnection, locks: TableLocks) -> bool:
    """Upgrade all but the indexes, in a transaction; return whether the schema is not newer."""
    from sqlalchemy.exc import DBAPIError

    try:
        await connection.rollback()
        await locks.await_readable(connection)
        await locks.await_missed(connection)
        async with connection.begin():
            return await _upgrade_on(connection, locks)
    except DBAPIError as error:
        raise _of_the_driver(error) from error


def _of_the_driver(error: BaseException) -> BaseException:
    """Return the driver's own error, if SQLAlchemy raised another one because of it."""
    return getattr(getattr(error, "orig", None), "__cause__", None) or error


async def _upgrade_on(connection: AsyncConnection, locks: TableLocks) -> bool:
    from sqlalchemy import text

    await refuse_unfit(connection)
    await connection.execute(text(lock_limit()))
    await connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
    revision = None
    if await connection.scalar(text("SELECT to_regclass('ledger.alembic_version') IS NOT NULL")):
        revision = await connection.scalar(text(revisions.REVISION))
    if await _is_done(connection, revision):
        await connection.execute(text("SELECT ledger.make_partitions()"))
        if revision not in revisions.known():
            return False
        await connection.exec_driver_sql(sql("access/close_database"))  # no dump has that
        return True
    if revision == revisions.head():
        await refuse_older_tables(connection)
    changed = await _changed_objects(connection, revision)
    script = install_script([name for name in OBJECTS if name in ALWAYS or name in changed])
    digests = {name: object_digest(name) for name in OBJECTS}
    run_migrations = prepared(script)  # everybody waits for what is done from the locks on
    if revision is not None and any(map(_locks_tables, changed)):
        await locks.take(connection)
    await connection.run_sync(run_migrations)
    await record_installed(connection, digest(), digests)
    return True


def _locks_tables(name: str) -> bool:
    """Whether installing the object locks a table or a view against others."""
    statements = ("CREATE OR REPLACE VIEW", "CREATE OR REPLACE TRIGGER", "CREATE POLICY")
    return name == "access/policy_rules" or any(words in sql(name) for words in statements)


async def _is_done(connection: AsyncConnection, revision: str | None) -> bool:
    """Whether the schema is as this code left it, or newer and works with this code."""
    from sqlalchemy import text

    if revision is None or revision in revisions.known():
        return revision == revisions.head() and await is_intact(connection, digest())
    oldest = await connection.scalar(text(revisions.OLDEST_CODE))
    if oldest not in revisions.known():
        raise NewerSchema(revision, revisions.head(), oldest)
    return True


async def _changed_objects(connection: AsyncConnection, revision: str | None) -> frozenset[str]:
    """Return the objects whose files have changed, or all.

    The former while the database is as an upgrade left it and no migration touches tables, on
    which views and functions of an unchanged text may depend.
    """
    recorded = await recorded_objects(connection) if revision is not None else {}
    if not recorded or revision is None or not only_functions_follow(revision):
        return frozenset(OBJECTS)
    return frozenset(name for name in OBJECTS if recorded.get(name) != object_digest(name))


def install_script(objects: Iterable[str]) -> str:
    """Return the script that installs functions, views, triggers, grants and partitions ahead."""
    facts = json.dumps({"revision": revisions.head(), "functions": digest()})
    return (
        "\n".join(map(sql, objects))
        + f"\nSELECT ledger.make_partitions();\nCOMMENT ON SCHEMA {SCHEMA} IS '{digest()}';"
        "\nSELECT ledger.append_control('*', 'schema.upgraded', 'schema:ledger', "
        f"'{facts}', session_user, NULL);\nSELECT ledger.keep_time();"
    )
