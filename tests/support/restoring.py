"""Bringing a database back to what it was when it was copied from the template of the tests.

Rows, functions and whole tables are put back. What else a test may change is compared: whether the
rest of the database is what it was is told from its catalogs, by which transaction wrote each row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final

import asyncpg

SEEDED: Final = ("alembic_version", "control_event", "control_head", "feed_generation", "project")
"""The tables that are not empty when a test begins."""
MOST_GROWTH: Final = 2**20
"""Bytes that tables may have grown by: the next test reads past all that was deleted."""
_CATALOGS: Final = [
    *("attrdef", "attribute", "cast", "class", "constraint", "default_acl", "description"),
    *("event_trigger", "extension", "index", "inherits", "operator", "policy", "publication"),
    *("rewrite", "sequence", "statistic", "statistic_ext", "trigger", "type"),
]
_IS_NEW: Final = "age(xmin) <= age($1::xid)"
"""Whether a row of a catalog was written since the mark, which is a transaction."""
_COUNTS: Final = ", ".join(
    f"(SELECT ARRAY[count(*) FILTER (WHERE NOT {_IS_NEW}), count(*) FILTER (WHERE {_IS_NEW})]"
    f" FROM pg_catalog.pg_{catalog})"
    for catalog in _CATALOGS
)
_SEEDS: Final = ", ".join(
    f"(SELECT md5(string_agg(seed::text, '' ORDER BY seed::text)) FROM ledger.{table} AS seed)"
    for table in SEEDED
)
# Functions may be replaced, so their rights count, and not who wrote their rows. A schema for
# temporary tables is made once for each session. VACUUM and ANALYZE write their counts in place.
_LOOK: Final = f"""
SELECT ARRAY[{_COUNTS}] AS counts,
  (SELECT count(*) FILTER (WHERE NOT {_IS_NEW}) FROM pg_proc
    WHERE pronamespace <> 'ledger'::regnamespace)
  || (SELECT string_agg(format('%s %s %s,', oid, proowner, proacl), '' ORDER BY oid) FROM pg_proc
    WHERE pronamespace = 'ledger'::regnamespace AND oid <= $2)
  || (SELECT string_agg(concat(nsp.xmin, nsp), ',' ORDER BY oid) FROM pg_namespace AS nsp
    WHERE nspname !~ '^pg_(toast_)?temp_' AND oid <= $2)
  || (SELECT string_agg(format('%s %s,', datdba, acl), '' ORDER BY acl::text) FROM pg_database,
      aclexplode(coalesce(datacl, acldefault('d', datdba))) AS acl
    WHERE datname = current_database())
  || (SELECT count(*) FROM pg_db_role_setting AS setting JOIN pg_database AS own
    ON own.oid = setting.setdatabase WHERE datname = current_database())
  || (SELECT format('%s %s', sum(relpages), sum(reltuples)) FROM pg_class
    WHERE relnamespace = 'ledger'::regnamespace AND oid <= $2) AS rest,
  ARRAY[{_SEEDS}] AS seeds,
  ARRAY(SELECT oid FROM pg_proc WHERE {_IS_NEW} AND oid <= $2) AS replaced,
  ARRAY(SELECT format('DROP %s IF EXISTS %s CASCADE', CASE relkind WHEN 'v' THEN 'VIEW'
      WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, oid::regclass)
    FROM pg_class WHERE oid > $2 AND relkind IN ('r', 'p', 'v', 'm', 'S'))
  || ARRAY(SELECT format('DROP ROUTINE IF EXISTS %s CASCADE', oid::regprocedure) FROM pg_proc
    WHERE oid > $2)
  || ARRAY(SELECT format('DROP SCHEMA IF EXISTS %I CASCADE', nspname) FROM pg_namespace
    WHERE oid > $2 AND nspname !~ '^pg_(toast_)?temp_') AS added,
  ARRAY(SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'ledger'::regnamespace
    AND relkind = 'r' AND oid <= $2 AND relname <> ALL ($3) AND pg_relation_size(oid) > 0)
    AS filled,
  (SELECT sum(pg_relation_size(oid)) FROM pg_class WHERE relnamespace = 'ledger'::regnamespace)
    AS bytes
"""
_MARK: Final = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint % 4294967296"
_DEFINITIONS: Final = """
SELECT oid, oid::regproc::text AS name, pg_get_functiondef(oid) AS definition FROM pg_proc
WHERE pronamespace = 'ledger'::regnamespace AND prokind = 'f'
"""
_SEQUENCES: Final = """
SELECT string_agg(format('SELECT setval(%L, %s, %L)', schemaname || '.' || sequencename,
  coalesce(last_value, start_value), last_value IS NOT NULL), ';') FROM pg_sequences
"""
_PARTS: Final = ("seeds", "replaced", "added")
"""What is looked at again once it was put back."""
# Triggers refuse a deletion and record it, whoever deletes: for as long as it takes, these do not.
_GUARDS: Final = ("ledger.refuse_change", "ledger.is_replicated")
_UNGUARDED: Final = """
CREATE OR REPLACE FUNCTION ledger.refuse_change() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS 'BEGIN RETURN OLD; END';
CREATE OR REPLACE FUNCTION ledger.is_replicated() RETURNS boolean LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS 'SELECT true'
"""


@dataclass(frozen=True)
class Origin:
    """What every copy of the template is when it is made."""

    newest: int
    """The oid of what was made last: oids are given in order, and a copy has the same."""
    look: Mapping[str, Any]
    definitions: Sequence[asyncpg.Record]
    sequences: str
    rows: Mapping[str, bytes]


async def origin_of(connection: asyncpg.Connection) -> Origin:
    """Read what a database is that no test has used."""
    newest = await connection.fetchval(
        "SELECT greatest((SELECT max(oid) FROM pg_class), (SELECT max(oid) FROM pg_proc))"
    )
    rows = {}
    for table in SEEDED:
        copied = BytesIO()
        await connection.copy_from_table(
            table, schema_name="ledger", output=copied, format="binary"
        )
        rows[table] = copied.getvalue()
    return Origin(
        newest,
        await _look(connection, await connection.fetchval(_MARK), newest),
        await connection.fetch(_DEFINITIONS),
        await connection.fetchval(_SEQUENCES),
        rows,
    )


class Restorer:
    """A session of its own that brings a database back to its origin, again and again."""

    def __init__(self, connection: asyncpg.Connection, origin: Origin) -> None:
        self._connection, self._origin = connection, origin
        self._mark = 0

    async def begin(self) -> None:
        """Take the database for what it is now. Foreign keys do not fire in this session."""
        # Once: a change of this setting makes a session forget its plans.
        await self._connection.execute("SET session_replication_role = replica")
        self._mark = await self._connection.fetchval(_MARK)

    async def look(self) -> Mapping[str, Any]:
        """Look at what became of the database."""
        return await _look(self._connection, self._mark, self._origin.newest)

    def can_restore(self, found: Mapping[str, Any]) -> bool:
        """Whether only what can be put back changed: no row of a catalog that was there."""
        first = self._origin.look
        return found["rest"] == first["rest"] and _old(found) == _old(first)

    async def restored(self, found: Mapping[str, Any]) -> bool:
        """Put back what changed, and return whether the database is what it was."""
        first = self._origin.look
        if not self.can_restore(found) or found["bytes"] > first["bytes"] + MOST_GROWTH:
            return False
        await self._restore(found)
        is_changed = any(new for _, new in found["counts"]) or any(
            found[part] != first[part] for part in _PARTS
        )
        if not is_changed:
            return True
        again = await self.look()
        return self.can_restore(again) and all(again[part] == first[part] for part in _PARTS)

    async def _restore(self, found: Mapping[str, Any]) -> None:
        seeds = zip(SEEDED, found["seeds"], self._origin.look["seeds"], strict=True)
        changed = [table for table, now, first in seeds if now != first]
        emptied = [*found["filled"], *(f"ledger.{table}" for table in changed)]
        definitions = [
            function["definition"]
            for function in self._origin.definitions
            if function["oid"] in found["replaced"] or function["name"] in _GUARDS
        ]
        async with self._connection.transaction():
            deleted = [f"DELETE FROM {table}" for table in emptied]
            await self._connection.execute(";".join([_UNGUARDED, *found["added"], *deleted]))
            for table in changed:
                rows = BytesIO(self._origin.rows[table])
                await self._connection.copy_to_table(
                    table, schema_name="ledger", source=rows, format="binary"
                )
            await self._connection.execute(";".join([self._origin.sequences, *definitions]))
        self._mark = await self._connection.fetchval(_MARK)


def _old(found: Mapping[str, Any]) -> list[int]:
    return [old for old, _ in found["counts"]]


async def _look(connection: asyncpg.Connection, mark: int, newest: int) -> Mapping[str, Any]:
    found = await connection.fetchrow(_LOOK, mark, newest, SEEDED)
    assert found is not None
    assert found["rest"]
    return dict(found)
