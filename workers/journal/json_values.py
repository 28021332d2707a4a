"""Values of a handler's own, written as the content of an event."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass
from typing import Any

from pydantic import BaseModel, RootModel
from pydantic_core import to_json, to_jsonable_python

from runfold.ledger.errors import InvalidValue


def recordable(name: str, value: Any, *, fallback: Callable[[Any], Any] | None = None) -> Any:
    """Write a value as JSON that is the same in every process: a set comes in the order of its members.

    `fallback` writes what JSON does not know. Raises InvalidValue.
    """
    try:
        return _in_order(to_jsonable_python(value, fallback=fallback), value)
    except Exception as error:  # a value's own code may raise anything
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise InvalidValue(
            name, type(value).__name__, f"cannot be recorded as JSON: {said}"
        ) from error


def _in_order(written: Any, value: Any) -> Any:
    """Put the sets in what was written in order, by a look at the value that it was written from, part by part."""
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
    found: Iterable[Any] | None = None
    match value:
        case dict():
            found = value.values()
        case list() | tuple() | set() | frozenset() | deque():
            found = value
        case BaseModel():
            found = (part for _, part in value)
        case _ if is_dataclass(value) and not isinstance(value, type):
            found = (getattr(value, field.name) for field in fields(value))
    return None if found is None else list(found)


def _place(member: Any) -> tuple[bool, float, bytes]:
    number = isinstance(member, int | float) and not isinstance(member, bool)
    return not number, float(member) if number else 0.0, to_json(member)
