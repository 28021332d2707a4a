"""Numbers of runs by kind and state, from the projection that keeps them; no page counts runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from urllib.parse import urlencode

from runfold.ledger import Ledger
from runfold.ledger.errors import InvalidQuery
from runfold.ledger.lifecycle import State
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.reading.query_words import Word, quoted, words
from runfold.projections.declared.rows import is_readable

KINDS: Final = 12
"""Kinds that have a facet: those with the most runs."""
_COUNTS: Final = """
SELECT kind, state, runs, changed_at FROM projection.run_counts WHERE project_id = $1
"""


@dataclass(frozen=True, slots=True)
class Counts:
    """How many runs are in each state of each kind, and when that last changed."""

    numbers: Mapping[tuple[str, str], int]
    changed_at: datetime | None

    def states(self, kinds: Sequence[str] = ()) -> dict[str, int]:
        """Return the runs in each state, of these kinds or of all."""
        sums = {state.value: 0 for state in State}
        for (kind, state), number in self.numbers.items():
            sums[state] += number if kind in kinds or not kinds else 0
        return sums

    def kinds(self, states: Sequence[str] = ()) -> dict[str, int]:
        """Return the runs of each kind, in these states or in all, most first."""
        sums: dict[str, int] = {}
        for (kind, state), number in self.numbers.items():
            sums[kind] = sums.get(kind, 0) + (number if state in states or not states else 0)
        return dict(sorted(sums.items(), key=lambda pair: (-pair[1], pair[0])))


@dataclass(frozen=True, slots=True)
class Facet:
    """A value of a field, and the link to the query with it, or without it if it is chosen.

    `number` is None if runs are not counted.
    """

    field: str
    value: str
    number: int | None
    link: str
    is_chosen: bool


async def counted(ledger: Ledger) -> Counts | None:
    """Return the numbers of a project; None if the projection is not kept."""
    if not await is_readable(ledger.pool, "run_counts"):
        return None
    rows = await fetch(ledger.pool, _COUNTS, ledger.project_id)
    numbers = {(row["kind"], row["state"]): int(row["runs"]) for row in rows}
    return Counts(
        numbers, max((row["changed_at"] for row in rows if row["changed_at"]), default=None)
    )


def facets(query: str, counts: Counts | None) -> dict[str, list[Facet]]:
    """Return the states and the kinds to choose from, each counted within the other choice.

    Other words of the query are ignored: the numbers are of all runs of the project.
    """
    try:
        known = words(query)
    except InvalidQuery:
        known = []
    chosen = {field: _chosen(known, field) for field in ("state", "kind")}
    states: Mapping[str, int | None] = dict.fromkeys(state.value for state in State)
    kinds: dict[str, int | None] = dict.fromkeys(chosen["kind"])
    if counts is not None:
        states = counts.states(chosen["kind"])
        kinds.update(list(counts.kinds(chosen["state"]).items())[:KINDS])
    return {
        field: [_facet(known, field, value, number, chosen[field]) for value, number in sums]
        for field, sums in (("state", states.items()), ("kind", kinds.items()))
    }


def _chosen(known: Sequence[Word], field: str) -> list[str]:
    named = [word for word in known if word.field == field and not word.negated]
    return [value for word in named for value in word.values]


def _facet(
    known: Sequence[Word], field: str, value: str, number: int | None, chosen: Sequence[str]
) -> Facet:
    rest = [word.text for word in known if word.field != field]
    is_chosen = value in chosen
    word = f"{field}:{value if value.isidentifier() else quoted(value)}"
    words_ = rest if is_chosen else [word, *rest]
    return Facet(field, value, number, urlencode({"q": " ".join(words_)}), is_chosen)
