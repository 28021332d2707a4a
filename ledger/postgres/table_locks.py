"""The locks of an upgrade that changes tables, views, triggers or policies: all of them at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from runfold.ledger.postgres.connections import FAILURES
from runfold.ledger.postgres.locks import lock_limit

if TYPE_CHECKING:  # SQLAlchemy takes a second to import
    from sqlalchemy.ext.asyncio import AsyncConnection

_FIRST: Final = ("access_grant", "project", "kind", "command", "projection", "feed_generation")
"""The tables that others lock first: later sessions then wait before they hold any other."""

# ONLY and ALTER VIEW: each lock is that of one relation. The lock of at_work is the upgrade's own.
_LOCK: Final = """
DO $$
DECLARE
  patience CONSTANT interval := least(current_setting('deadlock_timeout')::interval / 2,
    current_setting('lock_timeout')::interval);
  wanted record;
  since timestamptz;
  holder text;
BEGIN
  FOR wanted IN
    SELECT relation.oid, relation.relkind, relation.oid::regclass AS name FROM pg_class AS relation
    WHERE relation.relnamespace = to_regnamespace('ledger')
      AND relation.relkind IN ('r', 'p'{views})
      AND relation.relname <> 'at_work' AND {only} IN (0, relation.oid)
    ORDER BY array_position('{{{first}}}', relation.relname::text), NOT relation.relispartition
      AND relation.relkind <> 'p', relation.relispartition, relation.relname
  LOOP
    EXECUTE format(CASE wanted.relkind WHEN 'v' THEN 'ALTER VIEW %s OWNER TO CURRENT_USER'
        ELSE 'LOCK TABLE ONLY %s IN ACCESS {mode} MODE' END, wanted.name);
    since := coalesce(since, clock_timestamp());
    PERFORM set_config('lock_timeout', greatest(1, ceil(1000 * extract(epoch FROM
      patience - (clock_timestamp() - since))))::text, true);
  END LOOP;
EXCEPTION WHEN lock_not_available THEN
  SELECT CASE WHEN lock.pid IS NULL
    THEN format('prepared transaction %L of login %s', prepared.gid, prepared.owner) ELSE
    format('process %s (%s%s)%s', lock.pid, coalesce(nullif(session.application_name, ''),
        session.backend_type), ', login ' || session.usename, ', in a transaction since '
      || to_char(session.xact_start, 'YYYY-MM-DD HH24:MI:SSOF')) END
  INTO holder
  FROM pg_locks AS lock LEFT JOIN pg_stat_activity AS session ON session.pid = lock.pid
  LEFT JOIN (pg_prepared_xacts AS prepared JOIN pg_locks AS own
    ON own.transactionid = prepared.transaction)
    ON own.virtualtransaction = lock.virtualtransaction AND lock.pid IS NULL AND own.pid IS NULL
  WHERE lock.granted AND lock.relation = wanted.oid AND lock.pid IS DISTINCT FROM pg_backend_pid()
    AND lock.database = (SELECT database.oid FROM pg_database AS database
      WHERE database.datname = current_database())
  ORDER BY session.xact_start LIMIT 1;
  RAISE EXCEPTION '% stayed locked', wanted.name
    USING ERRCODE = '55P03', DETAIL = wanted.oid, HINT = coalesce(holder, '');
END $$
"""


def lock_statement(mode: Literal["SHARE", "EXCLUSIVE"], only: int = 0) -> str:
    """Return the statement that locks all tables, or one; and the views, if exclusively."""
    views = ", 'v'" if mode == "EXCLUSIVE" else ""
    return _LOCK.format(mode=mode, views=views, only=only, first=",".join(_FIRST))


class TableLocks:
    """Locks every table and view of the ledger against everybody, in several tries.

    Nobody else may be ended for a deadlock with an upgrade: the server ends one of two that wait
    for each other after deadlock_timeout. So from its first lock on, the upgrade gives up after
    half of that. It waits longer, for `locks.LOCK_TIMEOUT`, only while it holds none: for its first
    lock, and before another try for the table that it did not get. That is also long enough for the
    server to end an autovacuum in the way.
    """

    def __init__(self) -> None:
        """Begin with the first try."""
        self._missed = 0

    async def await_readable(self, connection: AsyncConnection) -> None:
        """Wait until nobody keeps the tables from being read, as the catalogue does for a view.

        Raises as `take`. Nobody waits for the locks, which are those of a reader.
        """
        from sqlalchemy import text

        async with connection.begin():
            await connection.execute(text(lock_limit()))
            await connection.exec_driver_sql(lock_statement("SHARE"))

    async def await_missed(self, connection: AsyncConnection) -> None:
        """Wait until the table that the last try did not get is free. Raises as `take`."""
        if self._missed:
            async with connection.begin():
                await self._lock(connection, only=self._missed)

    async def take(self, connection: AsyncConnection) -> None:
        """Lock all until the end of the transaction. Raises the driver's error of SQLSTATE 55P03.

        Its detail is the table's number, and its hint names a session that holds it.
        """
        await self._lock(connection, only=0)

    async def _lock(self, connection: AsyncConnection, *, only: int) -> None:
        from sqlalchemy import text
        from sqlalchemy.exc import DBAPIError

        await connection.execute(text(lock_limit()))
        try:
            await connection.exec_driver_sql(lock_statement("EXCLUSIVE", only))
        except DBAPIError as error:
            cause = getattr(error.orig, "__cause__", None)
            if isinstance(cause, FAILURES) and getattr(cause, "sqlstate", None) == "55P03":
                self._missed = int(getattr(cause, "detail", None) or 0)
            raise
        await connection.execute(text(lock_limit()))
