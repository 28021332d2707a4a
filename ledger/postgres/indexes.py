"""Indexes that are built beside a working fleet, outside of the upgrade's transaction."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Self

import asyncpg

from runfold.ledger.postgres.locks import LOCK_TIMEOUT, lock_limit

BUILD_TIMEOUT: Final = "10min"
"""How long a build may wait for transactions that began before it; nobody waits behind it."""

_DEFINITION: Final = re.compile(
    r"^CREATE (?P<unique>UNIQUE )?INDEX (?P<name>\w+) ON ledger\.(?P<table>\w+)(?P<rest>\s.+?);",
    re.DOTALL | re.MULTILINE,
)
_STATE: Final = """
SELECT (SELECT index.indisvalid FROM pg_index AS index
    WHERE index.indexrelid = to_regclass(format('ledger.%I', $1::text))) AS valid,
  (SELECT relation.relkind = 'p' FROM pg_class AS relation
    WHERE relation.oid = to_regclass(format('ledger.%I', $2::text))) AS partitioned
"""
_WAIT: Final = "LOCK TABLE ONLY ledger.{} IN SHARE UPDATE EXCLUSIVE MODE"
"""Waits for who is at an index of the table, without a snapshot: a drop that waited with one would
be a deadlock, since a concurrent build waits for it in turn."""
_BARE_PARTITIONS: Final = """
SELECT part.relname AS name FROM pg_inherits AS child JOIN pg_class AS part
  ON part.oid = child.inhrelid
WHERE child.inhparent = to_regclass(format('ledger.%I', $2::text)) AND NOT EXISTS (
  SELECT FROM pg_inherits AS child_index JOIN pg_index AS index
    ON index.indexrelid = child_index.inhrelid
  WHERE child_index.inhparent = to_regclass(format('ledger.%I', $1::text))
    AND index.indrelid = part.oid)
ORDER BY part.relname
"""


@dataclass(frozen=True, slots=True)
class Index:
    """An index as a file of `ledger/sql/indexes` defines it."""

    name: str
    table: str
    unique: bool
    rest: str
    """What follows the table's name: method, columns, predicate."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `CREATE INDEX name ON ledger.table ...;`; raise ValueError for anything else."""
        match = _DEFINITION.search(text)
        if match is None:
            raise ValueError(f"no index of schema ledger is defined by: {text.strip()}")
        return cls(match["name"], match["table"], bool(match["unique"]), match["rest"])

    def sql(self, how: str, name: str, table: str) -> str:
        """Return the statement that makes the index, or its part of a partition."""
        concurrently, only = ("CONCURRENTLY ", "") if how == "concurrently" else ("", "ONLY ")
        unique = "UNIQUE " if self.unique else ""
        return f"CREATE {unique}INDEX {concurrently}{name} ON {only}ledger.{table}{self.rest}"


def definitions(script: str) -> Iterator[str]:
    """Yield the definitions of the indexes that a script makes."""
    yield from (match[0] for match in _DEFINITION.finditer(script))


async def build_indexes(
    connection: asyncpg.Connection[Any], texts: Iterable[str]
) -> tuple[str, ...]:
    """Build the indexes that the database lacks, and those that a build left invalid.

    The connection is in no transaction. Returns the names of what was built. Raises ValueError for
    a text that defines no index, and the driver's errors: the next call goes on from there.
    """
    built = []
    for index in map(Index.parse, texts):
        state = await connection.fetchrow(_STATE, index.name, index.table)
        assert state is not None
        if state["valid"]:
            continue
        if state["partitioned"]:
            await _build_by_partitions(connection, index, begun=state["valid"] is not None)
        else:
            await _build(connection, index, index.name, index.table)
        built.append(index.name)
    return tuple(built)


async def _build_by_partitions(
    connection: asyncpg.Connection[Any], index: Index, *, begun: bool
) -> None:
    """Build partition by partition; the index is valid once every partition has its part."""
    if not begun:
        async with connection.transaction():
            await connection.execute(lock_limit())
            await connection.execute(_WAIT.format(index.table))
            state = await connection.fetchrow(_STATE, index.name, index.table)
            if state is not None and state["valid"] is None:
                await connection.execute(index.sql("only", index.name, index.table))
    for row in await connection.fetch(_BARE_PARTITIONS, index.name, index.table):
        part = f"{row['name']}_{index.name}"
        await _build(connection, index, part, row["name"])
        await connection.execute(f"SET lock_timeout = '{LOCK_TIMEOUT}'")
        await connection.execute(f"ALTER INDEX ledger.{index.name} ATTACH PARTITION ledger.{part}")


async def _build(connection: asyncpg.Connection[Any], index: Index, name: str, table: str) -> None:
    """Build one index concurrently, in place of an invalid one of that name."""
    await connection.execute(f"SET lock_timeout = '{BUILD_TIMEOUT}'")
    async with connection.transaction():
        await connection.execute(_WAIT.format(table))
    state = await connection.fetchrow(_STATE, name, table)
    assert state is not None
    if state["valid"]:  # of a build that ended before it was attached, or of somebody else's
        return
    if state["valid"] is not None:
        await connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS ledger.{name}")
    await connection.execute(index.sql("concurrently", name, table))
