"""The operations of the fold, one class each: Python step, SQL step, aggregate, merge, types.

Every form of the fold is compiled from these classes: the inline update and the rebuild of
`run_state`, the statements of declared projections, and the fold in Python. To add an operation,
write one class and call an instance of it: `newest = Newest()` makes `newest("actor",
on={"run.submitted"})` a fold of a column.

Each operation is associative over a run's events in version order: folding one event into a row,
all events from nothing, or two halves that are merged afterwards gives the same row.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Final

from runfold.projections.algebra.fold import Fold, Operation, Placed, types_of
from runfold.projections.algebra.source import Source

COMPARABLE: Final = frozenset(
    {"text", "int", "bigint", "numeric", "date", "timestamptz", "interval"}
)
SINGLE: Final = COMPARABLE | {"boolean", "uuid", "bytea"}
SUMS: Final = {"int": "bigint", "bigint": "numeric", "numeric": "numeric", "interval": "interval"}
"""The type of a sum by the type of what is added up."""


class SourceOperation(Operation):
    """An operation on values; it is called with where they come from."""

    def __call__(
        self, source: str | Source, on: Iterable[str] | None = None, *, default: int | None = None
    ) -> Fold:
        """Declare a column that folds `source` over events of the types `on`, or of all types."""
        return Fold(self, source, types_of(on), default)


class Ordered(SourceOperation):
    """An operation whose result is the value of one event, chosen by position.

    The column is stored with that position, which a merge has to know.
    """

    types = SINGLE
    purpose = "be picked by order; fold it with `once`"
    direction: ClassVar[str] = "DESC"

    def aggregate_sql(self, facts: Placed, when: str, source_type: str) -> str:  # noqa: ARG002
        """Compile the fold of a group of events."""
        present = "" if self.keeps_null else f"{facts.value} IS NOT NULL"
        order = f" ORDER BY {facts.position} {self.direction}"
        return f"(array_agg({facts.value}{order}){filter_sql(when, present)})[1]"

    def position_sql(self, facts: Placed) -> str:
        """Compile the position of the event whose value the aggregate takes."""
        present = "" if self.keeps_null else f"{facts.value} IS NOT NULL"
        extreme = "max" if self.direction == "DESC" else "min"
        return f"{extreme}({facts.position}){filter_sql(present)}"

    def merge_sql(self, stored: Placed, folded: Placed) -> str:
        """Compile the merge: the value with the newer position, or with the older."""
        if self.direction == "DESC":
            wins = f"{folded.position} > coalesce({stored.position}, 0)"
        else:
            wins = f"{folded.position} < coalesce({stored.position}, {folded.position} + 1)"
        return f"CASE WHEN {wins} THEN {folded.value} ELSE {stored.value} END"

    def merge_position_sql(self, stored: Placed, folded: Placed) -> str:
        """Compile the merge of the positions."""
        extreme = "greatest" if self.direction == "DESC" else "least"
        return f"{extreme}({stored.position}, {folded.position})"


class Last(Ordered):
    """Take the newest value that is not null."""

    name = "last"

    def step(self, old: Any, new: Any) -> Any:
        """Return the new value if there is one."""
        return old if new is None else new

    def step_sql(self, old: str, new: str, when: str) -> str:
        """Compile `step`."""
        return f"coalesce({counted_sql(new, when)}, {old})"


class First(Ordered):
    """Take the oldest value that is not null."""

    name = "first"
    direction = "ASC"

    def step(self, old: Any, new: Any) -> Any:
        """Return the old value if there is one."""
        return new if old is None else old

    def step_sql(self, old: str, new: str, when: str) -> str:
        """Compile `step`."""
        return f"coalesce({old}, {counted_sql(new, when)})"


class Assign(Ordered):
    """Take the value of the newest counted event, null included: an event may clear the column."""

    name = "assign"
    keeps_null = True

    def step(self, old: Any, new: Any) -> Any:  # noqa: ARG002  whatever was there
        """Return the new value."""
        return new

    def step_sql(self, old: str, new: str, when: str) -> str:
        """Compile `step`."""
        return f"CASE WHEN {when} THEN {new} ELSE {old} END" if when else new


class Once(SourceOperation):
    """Take the value of the only counted event; arrays too.

    Should a projection count several after all, it takes the largest value, in any order.
    """

    name = "once"

    def step(self, old: Any, new: Any) -> Any:
        """Return the value that there is."""
        return new if old is None else old

    def step_sql(self, old: str, new: str, when: str) -> str:
        """Compile `step`."""
        return f"coalesce({old}, {counted_sql(new, when)})"

    def aggregate_sql(self, facts: Placed, when: str, source_type: str) -> str:
        """Compile the fold of a group; max() is the cheapest aggregate of one value."""
        if source_type in COMPARABLE or source_type.endswith("[]"):
            return f"max({facts.value}){filter_sql(when)}"
        present = filter_sql(when, f"{facts.value} IS NOT NULL")
        return f"(array_agg({facts.value} ORDER BY {facts.value} DESC){present})[1]"

    def merge_sql(self, stored: Placed, folded: Placed) -> str:
        """Compile the merge: the value that there is."""
        return f"greatest({stored.value}, {folded.value})"


class Total(SourceOperation):
    """Add up, from zero."""

    name = "sum"
    types = frozenset(SUMS)
    purpose = "be added up"
    start = 0

    def column_type(self, source_type: str) -> str:
        """Return a type that holds the sum of many values."""
        return SUMS[source_type]

    def step(self, old: Any, new: Any) -> Any:
        """Return the sum."""
        return old + (new or 0)

    def step_sql(self, old: str, new: str, when: str) -> str:
        """Compile `step`."""
        plus = f"coalesce({new}, 0)"
        return f"{old} + " + (f"CASE WHEN {when} THEN {plus} ELSE 0 END" if when else plus)

    def aggregate_sql(self, facts: Placed, when: str, source_type: str) -> str:
        """Compile the sum of a group."""
        zero = "'0'" if source_type == "interval" else "0"
        return f"coalesce(sum({facts.value}){filter_sql(when)}, {zero})"

    def merge_sql(self, stored: Placed, folded: Placed) -> str:
        """Compile the sum of two sums."""
        return f"{stored.value} + {folded.value}"


class Count(Operation):
    """Count the events."""

    name = "count"
    start = 0

    def __call__(self, on: Iterable[str] | None = None) -> Fold:
        """Declare a column that counts events of the types `on`; None: of every type."""
        return Fold(self, "version", types_of(on))

    def column_type(self, source_type: str) -> str:  # noqa: ARG002  a number, whatever counts
        """Return the type of a count."""
        return "bigint"

    def step(self, old: Any, new: Any) -> Any:  # noqa: ARG002  the event counts, not its value
        """Return one more."""
        return old + 1

    def step_sql(self, old: str, new: str, when: str) -> str:  # noqa: ARG002  as in `step`
        """Compile `step`."""
        return f"{old} + " + (f"CASE WHEN {when} THEN 1 ELSE 0 END" if when else "1")

    def aggregate_sql(self, facts: Placed, when: str, source_type: str) -> str:  # noqa: ARG002
        """Compile the count of a group."""
        return f"count({facts.value}){filter_sql(when)}"

    def merge_sql(self, stored: Placed, folded: Placed) -> str:
        """Compile the sum of two counts."""
        return f"{stored.value} + {folded.value}"


class Extreme(SourceOperation):
    """Take the largest or the smallest value."""

    types = COMPARABLE
    purpose = "be compared"
    aggregate: ClassVar[str]
    choice: ClassVar[str]

    def step_sql(self, old: str, new: str, when: str) -> str:
        """Compile `step`."""
        return f"{self.choice}({old}, {counted_sql(new, when)})"

    def aggregate_sql(self, facts: Placed, when: str, source_type: str) -> str:  # noqa: ARG002
        """Compile the extreme of a group."""
        return f"{self.aggregate}({facts.value}){filter_sql(when)}"

    def merge_sql(self, stored: Placed, folded: Placed) -> str:
        """Compile the extreme of two."""
        return f"{self.choice}({stored.value}, {folded.value})"


class Greatest(Extreme):
    """Take the largest value."""

    name, aggregate, choice = "max", "max", "greatest"

    def step(self, old: Any, new: Any) -> Any:
        """Return the larger one."""
        return max((value for value in (old, new) if value is not None), default=None)


class Least(Extreme):
    """Take the smallest value."""

    name, aggregate, choice = "min", "min", "least"

    def step(self, old: Any, new: Any) -> Any:
        """Return the smaller one."""
        return min((value for value in (old, new) if value is not None), default=None)


def counted_sql(value: str, when: str) -> str:
    """Compile the value of an event that counts, null of one that does not."""
    return f"CASE WHEN {when} THEN {value} END" if when else value


def filter_sql(*conditions: str) -> str:
    """Compile the filter of an aggregate; conditions that are empty always hold."""
    present = " AND ".join(filter(None, conditions))
    return f" FILTER (WHERE {present})" if present else ""


last: Final = Last()
first: Final = First()
assign: Final = Assign()
once: Final = Once()
total: Final = Total()
count: Final = Count()
greatest: Final = Greatest()
least: Final = Least()
