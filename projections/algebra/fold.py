"""What an operation is, the fold of one column, and the fold of events into a row in Python."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from runfold.projections.algebra.source import Source

Row: TypeAlias = dict[str, Any]
Types: TypeAlias = frozenset[str] | None
"""Event types; None: every type."""


@dataclass(frozen=True, slots=True)
class Placed:
    """The SQL of a column's value and of the position of the event that it comes from."""

    value: str
    position: str


class Operation(ABC):
    """How a column follows from the values of the events that count for it."""

    name: ClassVar[str]
    types: ClassVar[frozenset[str] | None] = None
    """The SQL types that can be folded so; None: every type."""
    purpose: ClassVar[str] = ""
    """What the other types cannot do, as an error says it: "be added up"."""
    start: ClassVar[int | None] = None
    """The column before any event."""
    keeps_null: ClassVar[bool] = False
    """Whether a null counts as a value."""

    def column_type(self, source_type: str) -> str:
        """Return the type of the column that folds values of a type."""
        return source_type

    @abstractmethod
    def step(self, old: Any, new: Any) -> Any:
        """Fold the value of one counted event into the value so far."""

    @abstractmethod
    def step_sql(self, old: str, new: str, when: str) -> str:
        """Compile `step`; `when` is the condition for the event to count, empty for always."""

    @abstractmethod
    def aggregate_sql(self, facts: Placed, when: str, source_type: str) -> str:
        """Compile the fold of a group of events; `when` as in `step_sql`."""

    @abstractmethod
    def merge_sql(self, stored: Placed, folded: Placed) -> str:
        """Compile the merge of two folds of different events, in either order."""


@dataclass(frozen=True, slots=True)
class Fold:
    """How one column follows from a run's events.

    It is `operation` over the values of `source` in events of the types `on`.

    `default` is the column before any event, in place of the operation's own; only `run_state` has
    one.
    """

    operation: Operation
    source: str | Source
    on: Types = None
    default: int | None = None

    @property
    def start(self) -> int | None:
        """The column before any event."""
        return self.operation.start if self.default is None else self.default

    def counts(self, event: Mapping[str, Any]) -> bool:
        """Whether the event counts for this column."""
        return self.on is None or event["type"] in self.on

    def where(
        self,
        *,
        present: str | None = None,
        absent: str | None = None,
        key: Mapping[str, str | Source] | None = None,
    ) -> NarrowedFold:
        """Narrow down, in a projection, the events that count: see `NarrowedFold`."""
        return NarrowedFold(self, present, absent, key)


@dataclass(frozen=True, slots=True)
class NarrowedFold:
    """A fold in a projection that not every event of its types counts for.

    `present` and `absent` name a column of the event that must have a value, or none, for the event
    to count; `key` has other sources for some of the projection's key, so that the event counts in
    another row.
    """

    fold: Fold
    present: str | None = None
    absent: str | None = None
    key: Mapping[str, str | Source] | None = None


def types_of(on: Iterable[str] | None) -> Types:
    """Return the event types as a set; a single text is one type, not its letters."""
    if on is None:
        return None
    return frozenset({on} if isinstance(on, str) else on)


def fold(
    columns: Mapping[str, Fold], events: Iterable[Mapping[str, Any]], row: Row | None = None
) -> Row:
    """Fold events, in version order, into a row; `row` is where to start from."""
    row = {name: column.start for name, column in columns.items()} if row is None else dict(row)
    for event in events:
        for name, column in columns.items():
            if column.counts(event):
                value = event.get(str(column.source))
                row[name] = column.operation.step(row[name], value)
    return row
