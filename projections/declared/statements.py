"""Compiles a projection to SQL: the fold of events into rows, and their merge into the table.

    events -> facts -> rows -> table

`facts` evaluates every source once for each event that counts; `rows` folds the facts of each key;
the merge adds the rows to those that are there. Folding is associative, and what is newest is
decided by position: batches, ranges of runs and whole histories may be folded apart and merged in
any order.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from runfold.ledger.events import CATALOGUE
from runfold.ledger.lifecycle import RESERVED
from runfold.projections.algebra.fold import NarrowedFold, Placed
from runfold.projections.algebra.operation import Ordered
from runfold.projections.algebra.source import Source, as_source
from runfold.projections.declared.projection import Projection, column_type, position_name
from runfold.projections.declared.sources import text, texts

RUNS_ASIDE: Final = 100
"""With this many runs that cannot be folded, a project is set aside as a whole, untried."""


def known_sql(event: str) -> str:
    """Compile whether this code knows the event's schema version.

    A type that it does not know is a user's or a newer release's: its facts mean what they always
    mean, and no column of this code reads its content.
    """
    versions: dict[int, list[str]] = {}
    for type_, model in CATALOGUE.items():
        if type_.split(".", 1)[0] in RESERVED:
            versions.setdefault(model.SCHEMA_VERSION, []).append(type_)
    known = " ".join(
        f"WHEN {event}.type IN ({texts(types)}) THEN {version}"
        for version, types in versions.items()
    )
    return f"{event}.schema_version <= CASE {known} ELSE 2147483647 END"


def rows_sql(projection: Projection, events: str) -> str:
    """Fold events into rows; `events` is a relation with the columns of `ledger.event`."""
    groups: dict[str, dict[str, NarrowedFold]] = {}
    for name, column in projection.folds.items():
        groups.setdefault(_key_sql(projection, column), {})[name] = column
    facts = "\n  UNION ALL\n  ".join(
        _facts_sql(projection, key, counted, events) for key, counted in groups.items()
    )
    folded = [sql for name, column in projection.folds.items() for sql in _folded_sql(name, column)]
    key = ", ".join(f'fact."{name}"' for name in projection.key)
    whole = " AND ".join(f'fact."{name}" IS NOT NULL' for name in projection.key)
    rows = ",\n  ".join(folded)
    return f"SELECT {key},\n  {rows}\nFROM (\n  {facts}\n) AS fact\nWHERE {whole}\nGROUP BY {key}"


def _folded_sql(name: str, column: NarrowedFold) -> list[str]:
    """Compile the fold of the facts of one column, and the position of its value if it has one."""
    fold, facts = column.fold, _placed("fact", name)
    # A fact that does not count has no position and no value; where null is a value, only the
    # position tells.
    when = f"{facts.position} IS NOT NULL" if fold.operation.keeps_null else ""
    value = fold.operation.aggregate_sql(facts, when, as_source(fold.source).type)
    folded = [f'{value}::{column_type(fold)} AS "{name}"']
    if isinstance(fold.operation, Ordered):
        folded.append(f'{fold.operation.position_sql(facts)} AS "{position_name(name)}"')
    return folded


def merge_sql(projection: Projection, rows: str, table: str) -> str:
    """Merge folded rows, a SELECT as `rows_sql` makes it, into the table or one like it."""
    names, key = _names(projection.column_types()), _names(projection.key)
    sets = []
    for name, column in projection.folds.items():
        operation, stored, folded = (
            column.fold.operation,
            _placed("stored", name),
            _placed("excluded", name),
        )
        sets.append(f'"{name}" = {operation.merge_sql(stored, folded)}')
        if isinstance(operation, Ordered):
            position = operation.merge_position_sql(stored, folded)
            sets.append(f'"{position_name(name)}" = {position}')
    changes = ",\n  ".join(sets)
    return (
        f"INSERT INTO {table} AS stored ({names})\n"
        f"SELECT {names} FROM (\n{rows}\n) AS folded\n"
        f"ORDER BY {key}\nON CONFLICT ({key}) DO UPDATE SET\n  {changes}"
    )


def _placed(row: str, name: str) -> Placed:
    return Placed(f'{row}."{name}"', f'{row}."{position_name(name)}"')


@lru_cache(maxsize=256)
def taken_sql(projection: Projection, page: str, table: str) -> str:
    """Fold a page of events, a SELECT, into the table; return its events, rows and last position.

    Left out, and not even looked at, are skipped events and those of runs that are set aside for
    this table; the latter are noted, so that they can be folded later. An event that this code does
    not know raises.
    """
    relation, name = text(table), text(projection.name)
    merge = merge_sql(projection, rows_sql(projection, "taken"), table)
    return f"""\
WITH page AS MATERIALIZED (
{page}
), aside AS MATERIALIZED (
{_aside_sql(relation)}
), noted AS (
  INSERT INTO ledger.projection_aside AS known
    (relation, name, project_id, run_id, first_position, last_position, events, event_version)
  SELECT {relation}, {name}, aside.project_id, aside.run_id, aside.first, aside.last,
    aside.events, aside.version
  FROM aside
  ON CONFLICT (relation, project_id, run_id) DO UPDATE
  SET last_position = greatest(known.last_position, excluded.last_position),
    events = known.events + excluded.events
), taken AS MATERIALIZED (
{_taken_sql(name, projection.version)}
), merged AS (
{merge}
RETURNING 1)
SELECT count(*) AS events, max(page.position) AS position,
  (SELECT count(*) FROM merged) AS rows
FROM page"""


# The uncorrelated subqueries of these two are evaluated once a page: where nothing is set aside and
# nothing is skipped, as nearly always, no event is looked up.
def _aside_sql(relation: str) -> str:
    """Select the runs of the page that are set aside, or whose project has too many that are."""
    return f"""\
  SELECT page.project_id, page.run_id, min(page.position) AS first, max(page.position) AS last,
    count(*) AS events, min(page.version) AS version
  FROM page
  WHERE (SELECT EXISTS (
      SELECT FROM ledger.projection_aside AS known WHERE known.relation = {relation}))
    AND (page.project_id = ANY (ARRAY(
        SELECT known.project_id FROM ledger.projection_aside AS known
        WHERE known.relation = {relation} AND known.error IS NOT NULL
        GROUP BY known.project_id HAVING count(*) >= {RUNS_ASIDE}))
      OR EXISTS (SELECT FROM ledger.projection_aside AS known WHERE known.relation = {relation}
        AND known.project_id = page.project_id AND known.run_id = page.run_id))
  GROUP BY page.project_id, page.run_id"""


def _taken_sql(name: str, version: int) -> str:
    """Select the events of the page that are folded."""
    return f"""\
  SELECT page.* FROM page WHERE CASE
    WHEN (SELECT EXISTS (SELECT FROM aside)) AND EXISTS (SELECT FROM aside
      WHERE aside.project_id = page.project_id AND aside.run_id = page.run_id) THEN false
    WHEN (SELECT EXISTS (SELECT FROM ledger.projection_skip AS skip
      WHERE skip.name = {name} AND skip.version = {version}))
      AND EXISTS (SELECT FROM ledger.projection_skip AS skip WHERE skip.name = {name}
        AND skip.version = {version} AND skip.position = page.position) THEN false
    WHEN {known_sql("page")} THEN true
    ELSE ledger.refuse_version(page.type, page.schema_version)::boolean END"""


def required(projection: Projection) -> frozenset[str]:
    """Return the names of the columns that are never null."""
    return frozenset(projection.key) | {
        name for name, column in projection.folds.items() if column.fold.start is not None
    }


def _facts_sql(
    projection: Projection, key: str, counted: Mapping[str, NarrowedFold], events: str
) -> str:
    """Select what each event says to the columns that count it under this key."""
    facts = [key]
    for name, column in projection.folds.items():
        type_, when = as_source(column.fold.source).type, _when(column)
        value = _value(column.fold.source)
        if name not in counted:
            value = f"NULL::{type_}"
        elif when:
            value = f"CASE WHEN {when} THEN {value} END"
        facts.append(f'{value} AS "{name}"')
        if isinstance(column.fold.operation, Ordered):
            position = "NULL::bigint" if name not in counted else "event.position"
            if name in counted and when:
                position = f"CASE WHEN {when} THEN event.position END"
            facts.append(f'{position} AS "{position_name(name)}"')
    conditions = sorted({_when(column) for column in counted.values()})
    which = f" WHERE {' OR '.join(conditions)}" if all(conditions) else ""
    # OFFSET 0: the sources are evaluated once, whatever is done with their values.
    return f"(SELECT {', '.join(facts)} FROM {events} AS event{which} OFFSET 0)"


def _key_sql(projection: Projection, column: NarrowedFold) -> str:
    key = {**projection.key, **(column.key or {})}
    return ", ".join(f'{_value(source)} AS "{name}"' for name, source in key.items())


def _value(column: str | Source) -> str:
    source = as_source(column)
    if source.schema_versions is None:
        return source.sql
    known = ", ".join(map(str, source.schema_versions))
    refused = f"ledger.refuse_version(event.type, event.schema_version)::{source.type}"
    return f"CASE WHEN event.schema_version IN ({known}) THEN {source.sql} ELSE {refused} END"


def _when(column: NarrowedFold) -> str:
    conditions = [] if column.fold.on is None else [f"event.type IN ({texts(column.fold.on)})"]
    conditions += [f"event.{column.present} IS NOT NULL"] if column.present else []
    conditions += [f"event.{column.absent} IS NULL"] if column.absent else []
    return " AND ".join(conditions)


def _names(columns: Mapping[str, object]) -> str:
    return ", ".join(f'"{name}"' for name in columns)
