"""Compiles declarations into SQL: `python -m runfold.projections.state.compile [--check]`.

The results lie in `ledger/sql/compiled/` and `ledger/proof/run_state_columns.py`, so that the
ledger needs nothing from the projections when it runs.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Final

from runfold.ledger.lifecycle import FIRST, State
from runfold.ledger.postgres import tables
from runfold.projections.algebra.compiler import (
    aggregate_sql,
    condition_sql,
    start_sql,
    step_sql,
    wrapped,
)
from runfold.projections.algebra.fold import Fold
from runfold.projections.algebra.source import as_source
from runfold.projections.declared.derived import check_derived_sql
from runfold.projections.state import run_state
from runfold.projections.state.legal import is_type_sql, legal_sql

_HEADER: Final = "-- Compiled from {source} by `make sql`; do not edit.\n"

# Statistics must never change these plans: on an empty, freshly analysed table a hash or
# nested-loop join with run_state outside costs a factor of 60, and a generic plan outlives the
# moment it was made in.
PINNED: Final = """SET plan_cache_mode = force_generic_plan
SET enable_hashjoin = off
SET enable_mergejoin = off
SET enable_seqscan = off
SET enable_memoize = off
SET jit = off"""


def compiled() -> dict[str, str]:
    """Return every compiled SQL file: its name without the suffix, and its text."""
    columns, lifecycle, run_state_ = (
        run_state.COLUMNS,
        "ledger/lifecycle.py",
        "projections/state/run_state.py",
    )
    bodies = {
        "legal": (lifecycle, legal_sql()),
        "is_type": (lifecycle, is_type_sql()),
        "fold_run_state": (run_state_, trigger_sql(columns)),
        "rebuild_run_state": (run_state_, rebuild_sql(columns)),
        "fold_events": (run_state_, fold_sql(columns)),
        "check_derived": ("projections/declared/derived.py", check_derived_sql()),
    }
    return {
        name: wrapped(_HEADER.format(source=source) + body)
        for name, (source, body) in bodies.items()
    }


def trigger_sql(columns: Mapping[str, Fold]) -> str:
    """Compile the inline fold: the statement trigger on `event`."""
    return f"""\
-- Folds the events of one INSERT into run_state and refuses what the state machine forbids.
-- Every event is folded exactly once or the statement fails: an event that is in the table is a
-- legal event that has been folded.
-- Locks: the run_state rows of the events; the operations hold them already, taken in run_id order.
CREATE OR REPLACE FUNCTION ledger.fold_run_state() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
{PINNED}
AS $$
DECLARE
  wanted bigint;
  starts bigint;
  tagged bigint;
  folded bigint := 0;
  updated bigint := 0;
BEGIN
  SELECT count(*), count(*) FILTER (WHERE version = 1),
    count(*) FILTER (WHERE version = 1 AND tags <> '{{}}') INTO wanted, starts, tagged
  FROM new_events;
  IF starts > 0 THEN
  {_first_fold(columns)}
  GET DIAGNOSTICS folded = ROW_COUNT;
  END IF;
  IF tagged > 0 THEN
  INSERT INTO ledger.run_tag (project_id, tag, kind, run_id)
  SELECT event.project_id, each.tag, event.kind, event.run_id
  FROM new_events AS event
  CROSS JOIN LATERAL (SELECT DISTINCT unnest(event.tags) AS tag) AS each
  WHERE event.version = 1;
  END IF;
  IF wanted > starts THEN
  {_next_fold(columns)}
  GET DIAGNOSTICS updated = ROW_COUNT;
  END IF;
  IF folded + updated <> wanted THEN
    RAISE EXCEPTION 'only % of % events are legal next events of their runs; nothing was appended',
      folded + updated, wanted
      USING ERRCODE = 'RF001',
        HINT = 'Append through the functions of schema ledger, which lock and check the run first.';
  END IF;
  RETURN NULL;
END $$;
"""


def _first_fold(columns: Mapping[str, Fold]) -> str:
    """Compile the rows of new runs, which their first events give."""
    names = ", ".join((*run_state.KEY, *columns))
    sets = {column.on for column in columns.values() if column.on is not None}
    flags = {on: str(FIRST in on).lower() for on in sets}  # the type is known: see WHERE
    values = ",\n    ".join(
        step_sql(column, start_sql(column), "event", flags) for column in columns.values()
    )
    return f"""\
INSERT INTO ledger.run_state ({names})
  SELECT event.project_id, event.run_id,
    {values}
  FROM new_events AS event
  WHERE event.version = 1 AND event.type = '{FIRST}' AND event.state = '{State.PENDING}';"""


def _next_fold(columns: Mapping[str, Fold]) -> str:
    """Compile the change of known runs by their next events."""
    later = {name: _without_first(column) for name, column in columns.items()}
    changing = {name: column for name, column in later.items() if column.on != frozenset()}
    sets = sorted({column.on for column in changing.values() if column.on is not None}, key=sorted)
    facts = {"version", "type", "state", *(str(column.source) for column in changing.values())}
    read = ", ".join(f"fresh.{name}" for name in sorted(facts))
    marks = ",\n      ".join(f"{condition_sql(on, 'fresh')} AS {_flag(on)}" for on in sets)
    flags = {on: f"event.{_flag(on)}" for on in sets}
    steps = ",\n    ".join(
        f"{name} = {step_sql(column, f'run.{name}', 'event', flags)}"
        for name, column in changing.items()
    )
    return f"""\
-- The target row is found by a correlated lookup and updated by tuple id: no join order is left
  -- to choose. Whether an event is of a set of types (on_leased ...) is found once, not once for
  -- each column.
  UPDATE ledger.run_state AS run SET
    {steps}
  FROM (
    SELECT {read}, place.tid,
      {marks}
    FROM new_events AS fresh
    CROSS JOIN LATERAL (
      SELECT found.ctid AS tid FROM ledger.run_state AS found
      WHERE found.project_id = fresh.project_id AND found.run_id = fresh.run_id OFFSET 0
    ) AS place
    WHERE fresh.version > 1 OFFSET 0
  ) AS event
  WHERE run.ctid = event.tid AND run.version = event.version - 1
    AND ledger.legal(event.type, run.state, event.state);"""


def _without_first(column: Fold) -> Fold:
    """Return the column without the first event: conditions that differ only there become one."""
    return column if column.on is None else replace(column, on=column.on - {FIRST})


def _flag(on: frozenset[str]) -> str:
    """Return the name of the flag for these types, of which the first event's is left out."""
    for name, types in run_state.TYPE_SETS.items():
        if types - {FIRST} == on:
            return f"on_{name}"
    return "on_" + "_or_".join(type_.replace(".", "_") for type_ in sorted(on))


def rebuild_sql(columns: Mapping[str, Fold]) -> str:
    """Compile the set-based fold of histories, whole or up to a version or an instant."""
    return f"""\
-- Folds histories of a range of runs, whole or up to a version or an instant, into run_state.
CREATE OR REPLACE FUNCTION ledger.rebuild_run_state(
  p_project text, p_from uuid, p_to uuid,
  p_version int DEFAULT NULL, p_time timestamptz DEFAULT NULL
) RETURNS SETOF ledger.run_state
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
  SELECT event.project_id, event.run_id,
    {_aggregates(columns)}
  FROM ledger.event AS event
  WHERE event.project_id = p_project AND event.run_id BETWEEN p_from AND p_to
    AND (p_version IS NULL OR event.version <= p_version)
    AND (p_time IS NULL OR event.recorded_at <= p_time)
  GROUP BY event.project_id, event.run_id
$$;
"""


def fold_sql(columns: Mapping[str, Fold]) -> str:
    """Compile the set-based fold of events that are handed over."""
    return f"""\
-- Folds events that are handed over, a JSON list of rows of table `event`, into run_state.
CREATE OR REPLACE FUNCTION ledger.fold_events(p_events json) RETURNS SETOF ledger.run_state
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
  SELECT event.project_id, event.run_id,
    {_aggregates(columns)}
  FROM json_populate_recordset(NULL::ledger.event, p_events) AS event
  GROUP BY event.project_id, event.run_id
$$;
"""


def _aggregates(columns: Mapping[str, Fold]) -> str:
    return ",\n    ".join(f"{_typed(name, column)} AS {name}" for name, column in columns.items())


def _typed(name: str, column: Fold) -> str:
    """Compile the aggregate, cast where its type is wider than the column's."""
    compiled, have = aggregate_sql(column, "event"), as_source(column.source).type
    folded, declared = column.operation.column_type(have), tables.run_state.c[name].type
    return f"({compiled})::int" if folded == "bigint" and str(declared) == "INTEGER" else compiled


def columns_python() -> str:
    """Compile the declaration for the checks of the ledger, which fold in Python."""
    lines = [
        _HEADER.format(source="projections/state/run_state.py").replace("--", "#"),
        '"""Which column of `run_state` follows from which events (pure)."""\n\n',
        "# fmt: off\n",
        "COLUMNS: tuple[tuple[str, str, str, frozenset[str] | None, int | None], ...] = (\n",
    ]
    for name, column in run_state.COLUMNS.items():
        lines.append(f'    ("{name}", "{column.operation.name}", "{column.source}", ')
        if column.on is None:
            lines.append(f"None, {column.start}),\n")
            continue
        lines.append("frozenset({\n")
        lines += [f'        "{type_}",\n' for type_ in sorted(column.on)]
        lines.append(f"    }}), {column.start}),\n")
    return "".join([*lines, ")\n", _NAMES])


_NAMES: Final = (
    '"""Each column: its operation, the column of the event, the types that count, its start."""\n'
)


def main() -> int:
    """Write the compiled files, or with --check report which are out of date."""
    stale = {path: text for path, text in outputs().items() if _text_of(path) != text}
    for path, text in stale.items():
        if "--check" in sys.argv:
            sys.stderr.write(f"{path} is out of date: run `make sql`\n")
        else:
            path.write_text(text, encoding="utf-8")
    return 1 if stale and "--check" in sys.argv else 0


def outputs() -> dict[Path, str]:
    """Return every compiled file and its text."""
    ledger = Path(str(files("runfold.ledger")))
    sql = {ledger / "sql" / "compiled" / f"{name}.sql": text for name, text in compiled().items()}
    return {**sql, ledger / "proof" / "run_state_columns.py": columns_python()}


def _text_of(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


if __name__ == "__main__":
    sys.exit(main())
