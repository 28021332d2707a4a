"""The statement that reads a page of runs, whatever the filter, in the time of the page.

No index has every run by state: a claim would have to move a run within it twice. Every run
of a kind lies in exactly one of three indexes. One has the runs that wait since their submission,
in a list for each priority; one has the held runs, at most as many as workers have slots; one has
all others, in a list for each state. The lists are in the order of run ids. A page takes the first
runs of each list that the filter allows, and of the held runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from runfold.ledger.lifecycle import HELD, State
from runfold.ledger.reading.run_filter import RunFilter

_KINDS: Final = "(SELECT DISTINCT known.kind FROM ledger.kind AS known WHERE known.project_id = $1)"

# Rows of the label and the id are compared and ordered, so that only this index has the order. With
# `state = ...` the primary key would have it too, and the planner might walk all runs by it. Before
# PostgreSQL 18 a scan ends by the first member of a row only: at the end of its list.
_LIST: Final = """
  SELECT run.run_id FROM ledger.run_state AS run WHERE run.project_id = $1 AND {predicate}
    AND run.kind = list.kind AND (run.{column}, run.run_id) > (list.label, $2)
    AND (run.{column}, run.run_id) < (list.label, $3){others}
  ORDER BY run.{column} {order}, run.run_id {order} LIMIT {limit}"""
_PART: Final = f"""(
SELECT part.run_id FROM ({{lists}}) AS list (kind, label) CROSS JOIN LATERAL ({_LIST}
) AS part)"""
_MARKED_PART: Final = f"""(
SELECT part.run_id, part.place = {{limit}} AS is_last
FROM ({{lists}}) AS list (kind, label) CROSS JOIN LATERAL (
  SELECT ordered.run_id, row_number() OVER () AS place FROM ({_LIST}) AS ordered
) AS part)"""

# OFFSET 0: all that are held are read, never the runs of the project in the order of their ids.
_HELD_PART: Final = """(
SELECT run.run_id FROM {kinds} AS chosen (kind) CROSS JOIN LATERAL (
  SELECT held.* FROM ledger.run_state AS held
  WHERE held.project_id = $1 AND held.kind = chosen.kind AND held.token IS NOT NULL OFFSET 0
) AS run WHERE run.run_id > $2 AND run.run_id < $3{others}
ORDER BY run.run_id {order} LIMIT {limit})"""

# The priorities in use: each costs one lookup in the index.
_LABELS: Final = """
WITH RECURSIVE labels AS (
  SELECT chosen.kind, found.label FROM {kinds} AS chosen (kind) CROSS JOIN LATERAL (
    SELECT run.{column} AS label FROM ledger.run_state AS run
    WHERE run.project_id = $1 AND run.kind = chosen.kind AND {predicate}
    ORDER BY run.{column} DESC LIMIT 1) AS found
  UNION ALL
  SELECT last.kind, found.label FROM labels AS last CROSS JOIN LATERAL (
    SELECT run.{column} AS label FROM ledger.run_state AS run
    WHERE run.project_id = $1 AND run.kind = last.kind AND {predicate} AND run.{column} < last.label
    ORDER BY run.{column} DESC LIMIT 1) AS found
) SELECT labels.kind, labels.label FROM labels"""

_ALL: Final = """(
SELECT run.run_id FROM ledger.run_state AS run
WHERE run.project_id = $1 AND run.run_id > $2 AND run.run_id < $3{others}
ORDER BY run.run_id {order} LIMIT {limit})"""

_KEYED: Final = """(
SELECT run.run_id FROM ledger.command AS command
JOIN ledger.run_state AS run ON run.project_id = command.project_id AND run.run_id = command.run_id
WHERE command.project_id = $1 AND command.key = ANY ({keys}::text[]) AND run.key = command.key
  AND run.run_id > $2 AND run.run_id < $3{others})"""

# Each run once, though it may have several of the tags.
_TAGGED: Final = """(
SELECT DISTINCT part.run_id FROM {kinds} AS chosen (kind)
CROSS JOIN unnest({tags}::text[]) AS wanted (tag)
CROSS JOIN LATERAL (
  SELECT entry.run_id FROM ledger.run_tag AS entry{state}
  WHERE entry.project_id = $1 AND entry.tag = wanted.tag AND entry.kind = chosen.kind
    AND entry.run_id > $2 AND entry.run_id < $3{others}
  ORDER BY entry.run_id {order} LIMIT {limit}
) AS part)"""
_STATE_OF_TAGGED: Final = """
  CROSS JOIN LATERAL (SELECT * FROM ledger.run_state AS run
    WHERE run.project_id = entry.project_id AND run.run_id = entry.run_id OFFSET 0) AS run"""
FEW: Final = 2_000
"""Up to this many runs with a tag, their states are looked up; else the lists by state are read."""
# Ordered, so that no plan reads the whole table for want of statistics.
_ARE_FEW: Final = """
SELECT count(*) <= {few} AS are_few FROM (
  SELECT FROM {kinds} AS chosen (kind) CROSS JOIN unnest({tags}::text[]) AS wanted (tag)
  CROSS JOIN LATERAL (SELECT FROM ledger.run_tag AS entry
    WHERE entry.project_id = $1 AND entry.tag = wanted.tag AND entry.kind = chosen.kind
      AND entry.run_id > $2 AND entry.run_id < $3
    ORDER BY entry.run_id LIMIT {few} + 1) AS one LIMIT {few} + 1) AS counted"""

# The limit is part of the text: the planner takes an unknown one for a tenth of the table.
_IDS: Final = """
SELECT found.run_id FROM ({parts}) AS found ORDER BY found.run_id {order} LIMIT {limit}"""

# A list that gave as many runs as it may can have more beyond its last one. So nothing is known
# beyond the nearest such run, of any list.
_FIRST_IDS: Final = """
WITH found (run_id, is_last) AS MATERIALIZED ({parts}), cut AS MATERIALIZED (
  SELECT found.run_id FROM found WHERE found.is_last ORDER BY found.run_id {order} LIMIT 1)
SELECT found.run_id, row_number() OVER (ORDER BY found.run_id {order}) AS place,
  EXISTS (SELECT FROM cut) AS is_more
FROM found WHERE found.run_id {sign} coalesce((SELECT cut.run_id FROM cut), found.run_id)
ORDER BY found.run_id {order} LIMIT {limit}"""


@dataclass(frozen=True, slots=True)
class _Lists:
    """Lists of one index: by kind and `column`, of the runs for which the predicate holds."""

    column: str
    predicate: str
    states: frozenset[str]
    """The states that such runs may have."""


_WAITING: Final = _Lists(
    "priority", "run.available_at <= run.created_at", frozenset({State.PENDING})
)
_OTHERS: Final = _Lists(
    "state",
    "run.token IS NULL AND (run.available_at <= run.created_at) IS NOT TRUE",
    frozenset(State) - {State.RUNNING},
)


class _Conditions:
    """What runs must have, by column: the parameters and the conditions that refer to them."""

    def __init__(self, project_id: str, chosen: RunFilter, at: datetime | None) -> None:
        self.parameters: list[object] = [project_id, chosen.lower, chosen.upper]
        self.bound: dict[str, str] = {}
        self._texts: dict[str, str] = {}
        self._add("kind", chosen.kinds, "run.kind = ANY ({}::text[])")
        self._add("state", chosen.states, "run.state = ANY ({}::text[])")
        self._add("worker_id", chosen.worker_ids, "run.worker_id = ANY ({}::text[])")
        self._add("tags", chosen.tags, "run.tags && {}::text[]")
        self._add("key", chosen.keys, "run.key = ANY ({}::text[])")
        self._add("created_at", at, "run.created_at <= {}")

    def _add(self, column: str, value: object, text: str) -> None:
        if value is not None:
            self.parameters.append(value)
            self.bound[column] = f"${len(self.parameters)}"
            self._texts[column] = text.format(self.bound[column])

    def without(self, *columns: str) -> str:
        """Return the conditions, except those on columns by which the list is found anyway."""
        texts = (text for column, text in self._texts.items() if column not in columns)
        return "".join(f" AND {text}" for text in texts)


def page_ids(
    project_id: str, chosen: RunFilter, limit: int, *, at: datetime | None = None
) -> tuple[Any, ...]:
    """Return the statement that finds the ids of a page, and its parameters.

    Not for a tag together with a state. With `at` only runs that were submitted by then.
    """
    conditions = _Conditions(project_id, chosen, at)
    words = {"order": "ASC" if chosen.is_forward else "DESC", "limit": limit}
    parts = " UNION ALL ".join(_parts(chosen, conditions, words))
    return (_IDS.format(parts=parts, **words), *conditions.parameters)


def first_ids(project_id: str, chosen: RunFilter, limit: int, each: int) -> tuple[Any, ...]:
    """Return the statement that finds the first ids, `each` of a list at most, and its parameters.

    Not for a tag together with a state. Up to the last id, no run that fits is left out. Each row
    has an id, its place, and whether there may be more beyond the last.
    """
    conditions = _Conditions(project_id, chosen, None)
    words = {"order": "ASC" if chosen.is_forward else "DESC", "limit": each}
    parts = " UNION ALL ".join(_parts(chosen, conditions, words, marked=True))
    words |= {"limit": limit, "sign": "<=" if chosen.is_forward else ">="}
    return (_FIRST_IDS.format(parts=parts, **words), *conditions.parameters)


def few_have_tags(project_id: str, chosen: RunFilter) -> tuple[Any, ...]:
    """Return the statement that says whether at most FEW runs have the tags, and its parameters."""
    conditions = _Conditions(project_id, chosen, None)
    kinds, tags = _kinds(chosen, conditions.bound), conditions.bound["tags"]
    return (_ARE_FEW.format(kinds=kinds, tags=tags, few=FEW), *conditions.parameters)


def number_of_lists(chosen: RunFilter, kinds: int) -> int:
    """Return how many lists such runs lie in, for this many kinds with one priority each."""
    if chosen.keys is not None or chosen.worker_ids is not None:
        return 1
    if chosen.states is None and (chosen.kinds is None or chosen.tags is not None):
        return 1
    states = len(chosen.states) if chosen.states else len(_OTHERS.states)
    return (kinds if chosen.kinds is None else len(chosen.kinds)) * (states + 1)


def _parts(
    chosen: RunFilter, conditions: _Conditions, words: dict[str, Any], *, marked: bool = False
) -> Iterator[str]:
    """Yield the queries that find the runs; no two of them find the same run.

    With `marked` there is a second column: whether the run is the last that was read of a list.
    """
    for part, lists in _of_filter(chosen, conditions, words):
        if lists is None:
            yield f"(SELECT part.run_id, false FROM {part} AS part)" if marked else part
            continue
        yield (_MARKED_PART if marked else _PART).format(**lists)


def _of_filter(
    chosen: RunFilter, conditions: _Conditions, words: dict[str, Any]
) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """Yield a whole query, or the words of the template for the lists of an index."""
    if chosen.keys is not None:
        yield _KEYED.format(keys=conditions.bound["key"], others=conditions.without()), None
    elif chosen.tags is not None and chosen.worker_ids is None:
        yield _tagged(chosen, conditions, words), None
    elif chosen.kinds is None and chosen.states is None and chosen.worker_ids is None:
        yield _ALL.format(others=conditions.without(), **words), None
    else:
        yield from _listed(chosen, conditions, words)


def _tagged(chosen: RunFilter, conditions: _Conditions, words: dict[str, Any]) -> str:
    """Return the query of the runs with any of the tags."""
    others = conditions.without("tags", "kind")
    return _TAGGED.format(
        kinds=_kinds(chosen, conditions.bound),
        tags=conditions.bound["tags"],
        state=_STATE_OF_TAGGED if others else "",
        others=others,
        **words,
    )


def _listed(
    chosen: RunFilter, conditions: _Conditions, words: dict[str, Any]
) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """Yield the query of held runs, and the words of the template for the lists of each index."""
    kinds = _kinds(chosen, conditions.bound)
    if chosen.worker_ids is not None or _may_be(HELD, chosen):
        yield _HELD_PART.format(kinds=kinds, others=conditions.without("kind"), **words), None
    for lists in _lists(chosen):
        own = {
            "lists": _labels(lists, kinds, conditions.bound.get(lists.column)),
            "column": lists.column,
            "predicate": lists.predicate,
            "others": conditions.without("kind", lists.column),
        }
        yield "", own | words


def _kinds(chosen: RunFilter, bound: dict[str, str]) -> str:
    return _KINDS if chosen.kinds is None else f"unnest({bound['kind']}::text[])"


def _lists(chosen: RunFilter) -> Sequence[_Lists]:
    """Return the indexes in which such runs can lie, except the one of held runs."""
    if chosen.worker_ids is not None:  # whose runs are held
        return ()
    return [lists for lists in (_WAITING, _OTHERS) if _may_be(lists.states, chosen)]


def _may_be(states: frozenset[str], chosen: RunFilter) -> bool:
    """Whether runs of these states are asked for; if none are, any index will do."""
    return not chosen.states or not states.isdisjoint(chosen.states)


def _labels(lists: _Lists, kinds: str, states: str | None) -> str:
    """Return the query for the lists of an index that the filter allows: kind and label."""
    if lists is _OTHERS and states is None:
        states = "'{" + ",".join(sorted(lists.states)) + "}'"
    if states is None:
        return _LABELS.format(kinds=kinds, column=lists.column, predicate=lists.predicate)
    labels = f"unnest({states}::text[]) AS labels (label)"
    return f"SELECT chosen.kind, labels.label FROM {kinds} AS chosen (kind) CROSS JOIN {labels}"
