"""Compiles a projection to SQL: its table, the fold of any events into rows, and the merge of such rows into the table.

    events -> facts -> rows -> table

`facts` evaluates every source once for each event that counts; `rows` folds the facts of each key; the merge adds the rows
to those that are there. Folding is associative, and what is newest is told by position: batches, ranges of runs and whole
histories may be folded apart and merged in any order.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from runfold.ledger.events import CATALOGUE
from runfold.ledger.lifecycle import RESERVED
from runfold.projections.algebra.fold import NarrowedFold
from runfold.projections.algebra.operation import Ordered, Placed
from runfold.projections.algebra.source import Source, as_source
from runfold.projections.declared.projection import Projection, column_type, position_name
from runfold.projections.declared.sources import text, texts


def create_sql(projection: Projection, table: str | None = None) -> str:
    """Create the projection's table, or one like it under another name."""
    columns = ",\n  ".join(
        f'"{name}" {type_}{" NOT NULL" if name in required(projection) else ""}'
        for name, type_ in projection.column_types().items()
    )
    return f"CREATE TABLE {table or projection.table} (\n  {columns},\n  PRIMARY KEY ({_names(projection.key)})\n)"


def view_sql(projection: Projection) -> str:
    """Create the view under which the current version is read: the key, the columns and what is derived from them."""
    names = _names({**projection.key, **projection.columns})
    derived = "".join(f', ({sql}) AS "{name}"' for name, sql in projection.derived.items())
    return (
        f"CREATE OR REPLACE VIEW {projection.view} WITH (security_invoker = true) AS "
        f"SELECT {names}{derived} FROM {projection.table}"
    )


def known_sql(event: str) -> str:
    """Compile whether this code knows the event's type and schema version; users' own types it takes."""
    versions: dict[int, list[str]] = {}
    for type_, model in CATALOGUE.items():
        if type_.split(".", 1)[0] in RESERVED:
            versions.setdefault(model.SCHEMA_VERSION, []).append(type_)
    known = " ".join(
        f"WHEN {event}.type IN ({texts(types)}) THEN {version}"
        for version, types in versions.items()
    )
    own = f"split_part({event}.type, '.', 1) IN ({texts(RESERVED)})"
    return f"{event}.schema_version <= CASE {known} WHEN {own} THEN 0 ELSE 2147483647 END"


def rows_sql(projection: Projection, events: str) -> str:
    """Fold events into rows; `events` is a relation, or a subquery, with the columns of `ledger.event`."""
    groups: dict[str, dict[str, NarrowedFold]] = {}
    for name, column in projection.folds.items():
        groups.setdefault(_key_sql(projection, column), {})[name] = column
    facts = "\n  UNION ALL\n  ".join(
        _facts_sql(projection, key, counted, events) for key, counted in groups.items()
    )
    folded = [sql for name, column in projection.folds.items() for sql in _folded_sql(name, column)]
    key = ", ".join(f'f."{name}"' for name in projection.key)
    whole = " AND ".join(f'f."{name}" IS NOT NULL' for name in projection.key)
    rows = ",\n  ".join(folded)
    return f"SELECT {key},\n  {rows}\nFROM (\n  {facts}\n) AS f\nWHERE {whole}\nGROUP BY {key}"


def _folded_sql(name: str, column: NarrowedFold) -> list[str]:
    """Compile the fold of the facts of one column, and the position of its value if it has one."""
    fold, facts = column.fold, _placed("f", name)
    # A fact that does not count has no position and no value; where null is a value, only the position tells.
    when = f"{facts.position} IS NOT NULL" if fold.operation.keeps_null else ""
    value = fold.operation.aggregate_sql(facts, when, as_source(fold.source).type)
    folded = [f'{value}::{column_type(fold)} AS "{name}"']
    if isinstance(fold.operation, Ordered):
        folded.append(f'{fold.operation.position_sql(facts)} AS "{position_name(name)}"')
    return folded


def merge_sql(projection: Projection, rows: str, table: str | None = None) -> str:
    """Merge folded rows, a SELECT as `rows_sql` makes it, into the table or into one like it."""
    names, key = _names(projection.column_types()), _names(projection.key)
    sets = []
    for name, column in projection.folds.items():
        operation, stored, folded = (
            column.fold.operation,
            _placed("t", name),
            _placed("excluded", name),
        )
        sets.append(f'"{name}" = {operation.merge_sql(stored, folded)}')
        if isinstance(operation, Ordered):
            position = operation.merge_position_sql(stored, folded)
            sets.append(f'"{position_name(name)}" = {position}')
    changes = ",\n  ".join(sets)
    return (
        f"INSERT INTO {table or projection.table} AS t ({names})\nSELECT {names} FROM (\n{rows}\n) AS r\n"
        f"ORDER BY {key}\nON CONFLICT ({key}) DO UPDATE SET\n  {changes}"
    )


def _placed(row: str, name: str) -> Placed:
    return Placed(f'{row}."{name}"', f'{row}."{position_name(name)}"')


@lru_cache(maxsize=256)
def taken_sql(projection: Projection, page: str, table: str) -> str:
    """Fold a page of events, a SELECT, into the table; return its events, rows and last position.

    Skipped events are left out; one that this code does not know raises.
    """
    skipped = f"s.name = {text(projection.name)} AND s.version = {projection.version} AND s.position = p.position"
    refused = "ledger.refuse_version(p.type, p.schema_version)::boolean"
    return (
        f"WITH page AS MATERIALIZED (\n{page}\n), taken AS MATERIALIZED (\n"
        f"  SELECT p.* FROM page AS p WHERE NOT EXISTS (SELECT FROM ledger.projection_skip AS s WHERE {skipped})\n"
        f"    AND CASE WHEN {known_sql('p')} THEN true ELSE {refused} END\n"
        f"), merged AS (\n{merge_sql(projection, rows_sql(projection, 'taken'), table)}\nRETURNING 1)\n"
        "SELECT count(*) AS events, max(p.position) AS position, (SELECT count(*) FROM merged) AS rows FROM page AS p"
    )


def required(projection: Projection) -> frozenset[str]:
    """Return the names of the columns that are never null."""
    return frozenset(projection.key) | {
        name for name, column in projection.folds.items() if column.fold.start is not None
    }


def _facts_sql(
    projection: Projection, key: str, counted: Mapping[str, NarrowedFold], events: str
) -> str:
    """Select what each event says to the columns that count it under this key; null for the others."""
    facts = [key]
    for name, column in projection.folds.items():
        type_, when = as_source(column.fold.source).type, _when(column)
        value = _value(column.fold.source)
        if name not in counted:
            value = f"NULL::{type_}"
        elif when:
            value = f"CASE WHEN {when} THEN {value} END"
        facts.append(f'{value} AS "{name}"')
        if column.fold.operation.ordered:
            position = "NULL::bigint" if name not in counted else "e.position"
            if name in counted and when:
                position = f"CASE WHEN {when} THEN e.position END"
            facts.append(f'{position} AS "{position_name(name)}"')
    conditions = sorted({_when(column) for column in counted.values()})
    which = f" WHERE {' OR '.join(conditions)}" if all(conditions) else ""
    # OFFSET 0: the sources are evaluated once, whatever is done with their values.
    return f"(SELECT {', '.join(facts)} FROM {events} AS e{which} OFFSET 0)"


def _key_sql(projection: Projection, column: NarrowedFold) -> str:
    key = {**projection.key, **(column.key or {})}
    return ", ".join(f'{_value(source)} AS "{name}"' for name, source in key.items())


def _value(given: str | Source) -> str:
    source = as_source(given)
    if source.schema_versions is None:
        return source.sql
    known = ", ".join(map(str, source.schema_versions))
    refused = f"ledger.refuse_version(e.type, e.schema_version)::{source.type}"
    return f"CASE WHEN e.schema_version IN ({known}) THEN {source.sql} ELSE {refused} END"


def _when(column: NarrowedFold) -> str:
    conditions = [] if column.fold.on is None else [f"e.type IN ({texts(column.fold.on)})"]
    conditions += [f"e.{column.present} IS NOT NULL"] if column.present else []
    conditions += [f"e.{column.absent} IS NULL"] if column.absent else []
    return " AND ".join(conditions)


def _names(columns: Mapping[str, object]) -> str:
    return ", ".join(f'"{name}"' for name in columns)
