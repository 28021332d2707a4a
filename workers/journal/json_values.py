"""Values of a handler's own, written as the content of an event."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, PydanticUserError, RootModel, TypeAdapter
from pydantic_core import to_json, to_jsonable_python

from runfold.ledger.errors import InvalidValue


def as_declared(adapter: TypeAdapter[Any], checked: Any, *, round_trip: bool = False) -> Any:
    """Return a value that its declared type has checked as JSON.

    NaN and infinity stay what they are, whatever a model's own settings: the ledger refuses them.
    `round_trip`: the type reads the JSON back, so computed fields are left out and aliases used.
    """
    return adapter.dump_python(checked, mode="json", by_alias=round_trip, round_trip=round_trip)


def as_json(name: str, value: Any, *, fallback: Callable[[Any], Any] | None = None) -> Any:
    """Return a value as JSON that is the same in every process: sets are ordered.

    `fallback` writes what JSON does not know. Raises InvalidValue.
    """
    try:
        return _in_order(to_jsonable_python(value, fallback=fallback), value)
    except Exception as error:  # a value's own code may raise anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InvalidValue(
            name, type(value).__name__, f"cannot be recorded as JSON: {reason}"
        ) from error


def _in_order(written: Any, value: Any) -> Any:
    """Order the sets in the JSON of a value, part by part, by the value itself."""
    if isinstance(value, RootModel):
        return _in_order(written, value.root)
    parts = _parts(value)
    if parts is None or not isinstance(written, list | dict) or len(written) != len(parts):
        return written  # it has no parts, or writes itself in a way of its own
    if isinstance(written, dict):
        return dict(zip(written, map(_in_order, written.values(), parts), strict=True))
    members = list(map(_in_order, written, parts))
    return sorted(members, key=_place) if isinstance(value, set | frozenset) else members


def _parts(value: Any) -> list[Any] | None:
    parts: Iterable[Any] | None = None
    match value:
        case dict():
            parts = value.values()
        case list() | tuple() | set() | frozenset() | deque():
            parts = value
        case BaseModel():
            parts = (part for _, part in value)
        case _ if is_dataclass(value) and not isinstance(value, type):
            parts = (getattr(value, field.name) for field in fields(value))
    return None if parts is None else list(parts)


def _place(member: Any) -> tuple[bool, float, bytes]:
    number = isinstance(member, int | float) and not isinstance(member, bool)
    return not number, float(member) if number else 0.0, to_json(member)


def adapter_of_type(annotation: Any) -> TypeAdapter[Any]:
    """Return the adapter of a type, by which NaN and infinity stay what they are.

    Pydantic would write them as null; so the ledger refuses them. A model has a configuration of
    its own. Raises PydanticUserError when Pydantic cannot check the type.
    """
    try:
        return TypeAdapter(annotation, config=ConfigDict(ser_json_inf_nan="constants"))
    except PydanticUserError as error:
        if error.code != "type-adapter-config-unused":
            raise
        return TypeAdapter(annotation)
