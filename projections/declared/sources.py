"""Where a projection's values come from: an event, its payload, what came before it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from runfold.ledger.errors import InvalidValue
from runfold.ledger.events import check_named_types
from runfold.ledger.validation import check_encodable, check_int
from runfold.projections.algebra.fold import Types, types_of
from runfold.projections.algebra.source import Source, as_source

EACH: Final = "unnest("
"""The beginning of the SQL of a source that gives several values for one event."""
TYPES: Final = (
    "text", "int", "bigint", "numeric", "boolean", "uuid", "date", "timestamptz", "interval",
)  # fmt: skip
"""The types that a field of a payload can be read as."""
_TIMES: Final = ("date", "timestamptz")
_RELATIVE: Final = "'now|today|tomorrow|yesterday'"


def field(
    path: str,
    type: str = "text",  # noqa: A002  its own word
    *,
    schema_versions: Iterable[int] = (1,),
) -> Source:
    """Read a field of the event's payload; `usage.tokens` is `tokens` of the object `usage`.

    `type` is one of `TYPES`. It is null where the payload lacks it, and after the payload was
    erased. An event of another schema version than those given stops the projection: its fields may
    mean something else. A time without a zone is in UTC; one such as "today", which means something
    else each time that it is read, cannot be folded.
    """
    if type not in TYPES:
        raise InvalidValue("type of a field", type, f"must be one of {', '.join(TYPES)}")
    check_encodable("path of a field", path)
    if not path or not all(path.split(".")):
        raise InvalidValue(
            "path of a field", path, "must be names joined by dots, such as 'usage.tokens'"
        )
    steps = ", ".join(text(step) for step in path.split("."))
    versions = tuple(
        sorted(check_int("schema version", version, least=1) for version in schema_versions)
    )
    if not versions:
        raise InvalidValue("schema versions", versions, "name one or more")
    value = f"payload.body #>> ARRAY[{steps}]"
    if type in _TIMES:
        value = f"regexp_replace({value}, {_RELATIVE}, 'no time: \\&', 'i')"  # fails to be cast
    return Source(
        f"(SELECT {value} FROM ledger.payload AS payload "
        "WHERE payload.project_id = event.project_id AND payload.run_id = event.run_id "
        "AND payload.version = event.version)"
        f"::{type}",
        type,
        versions,
    )


def of_run(column: str) -> Source:
    """Read a column of the run's first event, such as its kind, its tags, its time."""
    source = check_column(column)
    return Source(
        f"(SELECT first.{column} FROM ledger.event AS first "
        "WHERE first.project_id = event.project_id AND first.run_id = event.run_id "
        "AND first.version = 1)",
        source.type,
    )


def earlier(column: str, on: Iterable[str] | None = None, *, inclusive: bool = False) -> Source:
    """Read a column of the run's newest earlier event that has a value there.

    With `on`: of the newest one of these types, null included.

    `inclusive`: the event itself counts as well, if it is of these types.
    """
    source = check_column(column)
    types = check_types(types_of(on))
    which = f"earlier.{column} IS NOT NULL" if not types else f"earlier.type IN ({texts(types)})"
    return Source(
        f"(SELECT earlier.{column} FROM ledger.event AS earlier "
        "WHERE earlier.project_id = event.project_id AND earlier.run_id = event.run_id "
        f"AND earlier.version <{'=' if inclusive else ''} event.version AND {which} "
        "ORDER BY earlier.version DESC LIMIT 1)",
        source.type,
    )


def since(on: Iterable[str]) -> Source:
    """Measure the time since the run's newest earlier event of these types."""
    return Source(f"(event.recorded_at - {earlier('recorded_at', on).sql})", "interval")


def of_lease(column: str) -> Source:
    """Read a column of the `lease.acquired` under which the event happened, else null."""
    source = check_column(column)
    run = "lease.project_id = event.project_id AND lease.run_id = event.run_id"
    token = (
        "CASE WHEN event.token IS NOT NULL THEN event.token "
        f"WHEN {earlier('state').sql} IS DISTINCT FROM 'pending' THEN {earlier('token').sql} END"
    )
    return Source(
        f"(SELECT lease.{column} FROM ledger.event AS lease "
        f"WHERE {run} AND lease.version = {token})",
        source.type,
    )


def day(column: str = "recorded_at") -> Source:
    """Return the day, in UTC, of a time that the event names."""
    if check_column(column).type != "timestamptz":
        raise InvalidValue("source", column, "is not a time, so it has no day")
    return Source(f"(event.{column} AT TIME ZONE 'UTC')::date", "date")


def each(source: str | Source) -> Source:
    """Count an event once for each member of an array: `each(of_run("tags"))`, for a key.

    An event whose array is empty or null counts nowhere. Raises InvalidValue unless the source is
    an array.
    """
    array = as_source(source)
    if not array.type.endswith("[]"):
        raise InvalidValue("source", array.sql, f"is of type {array.type}, and no array")
    return Source(f"{EACH}{array.sql})", array.type.removesuffix("[]"), array.schema_versions)


def either(*values: str | Source) -> Source:
    """Take the first of these that is not null.

    Raises InvalidValue unless they are of one type, and know one schema version at least together.
    """
    sources = [as_source(value) for value in values]
    if len({source.type for source in sources}) != 1:
        raise InvalidValue(
            "sources", [source.type for source in sources], "must be one or more of one type"
        )
    if any(source.sql.startswith(EACH) for source in sources):
        raise InvalidValue("sources", values, "has an `each` in it, which belongs around all of it")
    known = [set(source.schema_versions) for source in sources if source.schema_versions]
    versions = tuple(sorted(set.intersection(*known))) if known else None
    if known and not versions:
        raise InvalidValue("sources", values, "have no schema version that all of them know")
    return Source(
        f"coalesce({', '.join(source.sql for source in sources)})", sources[0].type, versions
    )


def check_types(on: Types) -> Types:
    """Return the event types; raise InvalidValue for none, or for one that no event can have."""
    if on is not None and not check_named_types("event type", tuple(on)):
        raise InvalidValue("event types", (), "name one or more, or leave them out")
    return on


def check_column(name: str) -> Source:
    """Return the source of an event's column; raise InvalidValue for anything else."""
    if not isinstance(name, str):
        raise InvalidValue("source", name, "is no text that names a column of an event")
    return as_source(name)


def text(value: str) -> str:
    """Return a text as an SQL literal."""
    return "'" + value.replace("'", "''") + "'"


def texts(values: Iterable[str]) -> str:
    """Return texts as SQL literals, sorted and joined by commas."""
    return ", ".join(text(value) for value in sorted(values))
