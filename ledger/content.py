"""What goes into payloads and text columns: checked once, on the way in."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, Final
from uuid import UUID

from pydantic import BaseModel
from pydantic_core import from_json, to_json

from runfold.ledger.errors import InvalidValue, PayloadTooLarge

MAX_TEXT: Final = 200
MAX_DEPTH: Final = 32
MAX_BITS: Final = 1_024
MAX_INT: Final = 2_147_483_647
MAX_COST_USD: Final = 1_000_000_000
_NUMBERS: Final = frozenset({int, float, Decimal})
_NOTHING: Final = Decimal("0.000000")
_MICRO: Final = Decimal("0.000001")
MAX_DURATION: Final = timedelta(days=3650)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")


def encode_payload(content: Mapping[str, Any], limit_bytes: int) -> str | None:
    """Write content as the JSON text that is stored and hashed, names in order; None when there is none.

    Raises InvalidValue for what JSON cannot hold and PayloadTooLarge above the limit.
    """
    given = {name: value for name, value in content.items() if value is not None}
    if not given:
        return None
    written = _quickly_encoded(given)
    if written is None:
        for name, value in given.items():
            if isinstance(value, BaseModel):
                given[name] = value.model_dump(mode="json")
            _check(name, given[name], 0)
        written = _ENCODE(given).encode()
    if len(written) > limit_bytes:
        raise PayloadTooLarge(" and ".join(given), len(written), limit_bytes)
    return written.decode()


def _quickly_encoded(given: dict[str, Any]) -> bytes | None:
    """Write nearly all content in one pass of native code; None of what this doubts: _check decides, and names it."""
    in_order = _is_in_order(given, -1)
    if in_order is None:
        return None
    try:
        written = to_json(given) if in_order else _ENCODE(given).encode()
    except ValueError:
        return None  # a lone surrogate
    return None if b"\\u0000" in written else written


def decode_payload(text: str | None) -> Any:
    """Read stored JSON; None for none."""
    if text is None:
        return None
    try:
        return from_json(text)
    except ValueError:  # nested deeper than this parser goes: written by somebody else's hand
        return json.loads(text)


_ENCODE: Final = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True
).encode
_SCALARS: Final = frozenset({str, bool, type(None)})


def _is_in_order(content: dict[str, Any] | list[Any], depth: int) -> bool | None:  # noqa: PLR0912  once a value, so in one pass
    """Tell of plain JSON content whether all its names are in order as they stand; None of what may be no JSON."""
    if depth >= MAX_DEPTH:
        return None
    in_order = True
    values: Any = content
    if type(content) is dict:
        last = ""
        for name in content:
            if type(name) is not str:
                return None
            if name < last:
                in_order = False
            last = name
        values = content.values()
    for value in values:
        kind = type(value)
        if kind in _SCALARS:
            continue
        if kind is int or kind is float:
            if not -MAX_INT <= value <= MAX_INT:  # nor is NaN
                return None
        elif kind is dict or kind is list:
            if not (inner := _is_in_order(value, depth + 1)):
                if inner is None:
                    return None
                in_order = False
        else:
            return None
    return in_order


def _check(path: str, value: Any, depth: int) -> None:  # noqa: PLR0912  one branch for each kind of JSON value
    if depth > MAX_DEPTH:
        raise InvalidValue(
            path[:80], "...", f"is nested deeper than {MAX_DEPTH} levels: flatten it"
        )
    match value:
        case str():
            check_encodable(path, value)
        case None | bool():
            pass
        case int():
            if value.bit_length() > MAX_BITS:
                raise InvalidValue(
                    path, "...", f"is a whole number of more than {MAX_BITS} bits: write it as text"
                )
        case float():
            if not math.isfinite(value):
                raise InvalidValue(
                    path, value, "JSON has no NaN and no infinity: leave it out or write it as text"
                )
        case dict():
            for key, inner in value.items():
                if not isinstance(key, str):
                    raise InvalidValue(path, key, "JSON objects have text keys")
                check_encodable(path, key)
                _check(f"{path}.{key}", inner, depth + 1)
        case list() | tuple():
            for index, inner in enumerate(value):
                _check(f"{path}[{index}]", inner, depth + 1)
        case _:
            raise InvalidValue(
                path,
                value,
                f"a {type(value).__name__} is not JSON: convert it to text, numbers, lists or objects",
            )


def check_encodable(name: str, value: str) -> None:
    """Raise InvalidValue for text that PostgreSQL cannot store."""
    if "\x00" in value:
        raise InvalidValue(name, value, "contains NUL, which PostgreSQL cannot store: remove it")
    if _SURROGATE.search(value):
        raise InvalidValue(
            name, value, "contains a lone surrogate, which is not Unicode text: decode it properly"
        )


def check_text(name: str, value: object, *, limit: int = MAX_TEXT) -> str:
    """Give short text back; raise InvalidValue unless it has 1 to `limit` printable characters."""
    if not isinstance(value, str):
        raise InvalidValue(name, value, "must be text")
    check_encodable(name, value)
    if not 0 < len(value) <= limit:
        raise InvalidValue(name, value, f"must have 1 to {limit} characters, not {len(value)}")
    if _CONTROL.search(value):
        raise InvalidValue(name, value, "must not contain control characters")
    return value


def check_actor(value: object, name: str = "actor") -> str:
    """Give who somebody is back; raise InvalidValue also for blanks around it, which would make one person look like two."""
    actor = check_text(name, value)
    if actor != actor.strip():
        raise InvalidValue(name, value, "must not begin or end with a blank")
    return actor


def check_reason(value: object) -> str | None:
    """Give a reason back; raise InvalidValue for what is no text. What it says is content, limited as such."""
    if value is not None and not isinstance(value, str):
        raise InvalidValue("reason", value, "must be text")
    return value


def check_int(name: str, value: object, *, least: int, most: int = MAX_INT) -> int:
    """Give a whole number back; raise InvalidValue unless it is within the limits."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidValue(name, value, "must be a whole number")
    if not least <= value <= most:
        raise InvalidValue(name, value, f"must be {least} to {most}")
    return value


def check_cost(name: str, value: object) -> Decimal:
    """Give an amount in US dollars as a decimal with six places; raise InvalidValue unless it is finite."""
    if not value and type(value) in _NUMBERS:  # nearly always
        return _NOTHING
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise InvalidValue(name, value, "must be a number of US dollars")
    try:
        cost = (
            Decimal(str(value)).quantize(_MICRO) if -MAX_COST_USD <= value <= MAX_COST_USD else None
        )
    except InvalidOperation:  # a decimal that is no number
        cost = None
    if cost is None:
        raise InvalidValue(
            name, value, f"must be a finite number of US dollars, at most {MAX_COST_USD:,}"
        )
    return cost


def check_duration(name: str, value: object, *, positive: bool = False) -> timedelta:
    """Give a duration in seconds or as a timedelta back as a timedelta; raise InvalidValue outside 0 to ten years."""
    duration = value
    if (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and abs(value) <= MAX_DURATION.total_seconds()
    ):  # no NaN
        duration = timedelta(seconds=value)
    if not isinstance(duration, timedelta):
        raise InvalidValue(
            name, value, f"must be seconds or a timedelta, at most {MAX_DURATION.days} days"
        )
    if duration < timedelta(0) or duration > MAX_DURATION or (positive and not duration):
        least = "more than 0" if positive else "0 or more"
        raise InvalidValue(name, value, f"must be {least} and at most {MAX_DURATION.days} days")
    return duration


def check_run_id(value: object) -> UUID:
    """Give a run id as a UUID; raise InvalidValue unless it is a UUIDv7."""
    if isinstance(value, str):
        try:
            value = UUID(value)
        except ValueError:
            raise InvalidValue(
                "run id", value, "is not a UUID: copy it from `runfold runs`"
            ) from None
    if not isinstance(value, UUID):
        raise InvalidValue("run id", value, "must be a UUID or its text")
    if value.version != 7:  # noqa: PLR2004  the version that the ledger makes
        raise InvalidValue(
            "run id",
            str(value),
            "is not a UUIDv7, so no ledger made it: copy it from `runfold runs`",
        )
    return value
