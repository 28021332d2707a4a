"""The operations of the fold: a new one needs one class, and all its forms agree."""

from __future__ import annotations

import itertools
from typing import Any, ClassVar

import pytest

from runfold.ledger import Ledger
from runfold.ledger.errors import InvalidValue
from runfold.ledger.events import NoteAdded
from runfold.projections.algebra.compiler import aggregate_sql, start_sql, step_sql, wrapped
from runfold.projections.algebra.fold import Fold, Placed, fold
from runfold.projections.algebra.operation import (
    SourceOperation,
    assign,
    count,
    counted_sql,
    filter_sql,
    first,
    greatest,
    last,
    least,
    once,
    total,
)
from runfold.projections.declared.catch_up import CatchUp
from runfold.projections.declared.installing import install
from runfold.projections.declared.projection import Projection, column_type


class Union(SourceOperation):
    """Collect different values as one sorted text: an operation as a reader would add it."""

    name: ClassVar[str] = "union"
    types = frozenset({"text"})
    purpose = "be collected"

    def step(self, old: Any, new: Any) -> Any:
        """Return the set with the new value."""
        values = {*(old or "").split(), *([] if new is None else [new])}
        return " ".join(sorted(values)) or None

    def step_sql(self, old: str, new: str, when: str) -> str:
        """Compile `step`."""
        return self._united(f"concat_ws(' ', {old}, {counted_sql(new, when)})")

    def aggregate_sql(self, facts: Placed, when: str, source_type: str) -> str:  # noqa: ARG002
        """Compile the set of a group."""
        return self._united(f"string_agg({facts.value}, ' '){filter_sql(when)}")

    def merge_sql(self, stored: Placed, folded: Placed) -> str:
        """Compile the union of two sets."""
        return self._united(f"concat_ws(' ', {stored.value}, {folded.value})")

    def _united(self, texts: str) -> str:
        return (
            "(SELECT string_agg(DISTINCT t, ' ' ORDER BY t)"
            f" FROM unnest(string_to_array({texts}, ' ')) AS t WHERE t <> '')"
        )


union = Union()

NOTES = {"note.added"}
FOLDS: dict[str, Fold] = {
    "last": last("actor", NOTES),
    "first": first("actor", NOTES),
    "assign": assign("worker_id", NOTES | {"lease.acquired"}),
    "once": once("kind", {"run.submitted"}),
    "sum": total("version", NOTES),
    "count": count(NOTES),
    "max": greatest("recorded_at"),
    "min": least("version", NOTES),
    "union": union("actor"),
}


async def _run_with_notes(ledger: Ledger) -> Any:
    run = await ledger.submit("parse")
    for actor in ("zoe", "ann", "zoe", "bob"):
        await ledger.append(run.run_id, NoteAdded(text="seen"), actor=actor)
    [lease] = await ledger.claim("w1")
    await ledger.append(lease, NoteAdded(text="by its worker"), actor="cem")
    return run.run_id


@pytest.mark.slow
async def test_every_form_of_an_operation_gives_the_same_value(
    ledger: Ledger, subtests: pytest.Subtests
) -> None:
    run_id = await _run_with_notes(ledger)
    events = [
        dict(row)
        for row in await ledger.pool.fetch(
            "SELECT * FROM ledger.event WHERE run_id = $1 ORDER BY version", run_id
        )
    ]
    for name, column in FOLDS.items():
        with subtests.test(name):
            in_python = fold({name: column}, events)[name]

            assert await _aggregated(ledger, column, run_id) == in_python
            assert await _stepped(ledger, column, run_id, len(events)) == in_python
            for batch in (1, 3, 100):
                assert (
                    await _projected(ledger, f"of_{name}_{batch}", column, run_id, batch)
                    == in_python
                )


async def _aggregated(ledger: Ledger, column: Fold, run_id: Any) -> Any:
    query = f"SELECT {aggregate_sql(column, 'e')} FROM ledger.event AS e WHERE e.run_id = $1"
    return await ledger.pool.fetchval(query, run_id)


async def _stepped(ledger: Ledger, column: Fold, run_id: Any, versions: int) -> Any:
    """Fold one event after the other in SQL, each into what the ones before gave."""
    query = ", ".join(
        [f"start AS (SELECT {start_sql(column)}::{column_type(column)} AS value)"]
        + [
            f"s{n} AS (SELECT {step_sql(column, 's.value', 'e')} AS value "
            f"FROM {before} AS s, ledger.event AS e "
            f"WHERE e.run_id = $1 AND e.version = {n})"
            for n, before in zip(
                range(1, versions + 1),
                itertools.chain(["start"], (f"s{n}" for n in itertools.count(1))),
                strict=False,
            )
        ]
    )
    return await ledger.pool.fetchval(f"WITH {query} SELECT value FROM s{versions}", run_id)


async def _projected(ledger: Ledger, name: str, column: Fold, run_id: Any, batch: int) -> Any:
    projection = Projection(name, key={"run_id": "run_id"}, columns={"value": column})
    await install(ledger.pool, projection)
    await CatchUp(ledger.pool, projection, batch=batch).to_the_end()
    query = f"SELECT value FROM {projection.view} WHERE run_id = $1"
    return await ledger.pool.fetchval(query, run_id)


async def test_an_array_is_folded_by_once_and_refused_where_order_picks_it(ledger: Ledger) -> None:
    with pytest.raises(InvalidValue, match="fold it with `once`"):
        Projection("tagged", key={"run_id": "run_id"}, columns={"tags": last("tags")})
    tagged = Projection(
        "tagged", key={"run_id": "run_id"}, columns={"tags": once("tags", {"run.submitted"})}
    )
    await ledger.submit("parse", tags=["a", "b"])
    await install(ledger.pool, tagged)
    await CatchUp(ledger.pool, tagged).to_the_end()

    assert await ledger.pool.fetchval("SELECT tags FROM projection.tagged") == ["a", "b"]


def test_a_type_alone_is_one_type_and_not_its_letters() -> None:
    assert count("note.added").on == {"note.added"}


def test_compiled_lines_break_at_spaces_outside_of_literals() -> None:
    long = "  SELECT " + ", ".join(f"'a literal {n}'" for n in range(30))

    lines = wrapped(long).split("\n")

    assert all(len(line) <= 120 for line in lines)
    assert " ".join(line.strip() for line in lines) == long.strip()
    assert all(line.count("'") % 2 == 0 for line in lines)
