"""Values of a handler's own, written as the content of an event."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic_core import to_json, to_jsonable_python

from ledger.errors import InvalidValue


def recordable(name: str, value: Any, *, fallback: Callable[[Any], Any] | None = None) -> Any:
    """Write a value as JSON that is the same in every process: a set comes in the order of its members' JSON.

    `fallback` writes what JSON does not know. Raises InvalidValue.
    """
    try:
        return to_jsonable_python(_in_order(value), fallback=fallback)
    except Exception as error:  # a value's own code may raise anything
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise InvalidValue(name, type(value).__name__, f"cannot be recorded as JSON: {said}") from error


def _in_order(value: Any) -> Any:
    match value:
        case set() | frozenset():
            return sorted(map(_in_order, value), key=lambda member: to_json(member, fallback=repr))
        case list() | tuple():
            return [_in_order(one) for one in value]
        case dict():
            return {name: _in_order(one) for name, one in value.items()}
        case _:
            return value
