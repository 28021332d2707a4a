"""Payloads: a mapping of names to JSON as the text that is stored and hashed, and back."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel
from pydantic_core import from_json, to_json

from runfold.ledger.errors import InvalidValue, PayloadTooLarge
from runfold.ledger.redaction import Redaction
from runfold.ledger.validation import MAX_INT, MAX_TEXT, check_encodable

MAX_DEPTH: Final = 32
"""Levels of lists and objects in one value."""
MAX_BITS: Final = 1_024
"""Size of a whole number."""
_ENCODE: Final = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True
).encode
_SCALARS: Final = frozenset({str, bool, type(None)})
_NUMBERS: Final = frozenset({int, float})
_CONTAINERS: Final = frozenset({dict, list})


class _UnusualError(Exception):
    """The fast path met a value that it leaves to `_check`."""


@dataclass(frozen=True, slots=True)
class PayloadRules:
    """The rules for every payload of a project."""

    limit_bytes: int
    redaction: Redaction | None
    """None: secrets are stored as they are."""


def encode_payload(content: Mapping[str, Any], rules: PayloadRules) -> str | None:
    """Return content as the JSON text that is stored and hashed, names sorted; None if empty.

    Secrets are redacted. Raises InvalidValue for what JSON cannot hold and PayloadTooLarge above
    the limit.
    """
    present = {name: value for name, value in content.items() if value is not None}
    if not present:
        return None
    written = _quickly_encoded(present)
    if written is None:
        written = _carefully_encoded(present, rules.redaction)
    if len(written) > rules.limit_bytes:
        raise _too_large(present, written, rules)
    text = written.decode()
    if rules.redaction is not None and rules.redaction.suspects(text):
        written = _carefully_encoded(present, rules.redaction)
        if len(written) > rules.limit_bytes:
            raise _too_large(present, written, rules)
        text = written.decode()
    return text


def _too_large(content: Mapping[str, Any], written: bytes, rules: PayloadRules) -> PayloadTooLarge:
    return PayloadTooLarge(" and ".join(content), len(written), rules.limit_bytes)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Stored content that cannot be read, in place of its value.

    Nothing writes it any more; a caller of the SQL functions could, before they checked content.
    """

    problem: str

    def __str__(self) -> str:
        """Return the problem, for people."""
        return f"cannot be read: {self.problem}"


def decode_payload(text: str | None) -> Any:
    """Return the value of stored JSON, None for none, an Unreadable for what cannot be read."""
    if text is None:
        return None
    try:
        return from_json(text)
    except (ValueError, RecursionError) as error:
        return Unreadable(str(error)[:MAX_TEXT] or type(error).__name__)


def payload_member(content: Any, name: str) -> Any:
    """Return a member of a decoded payload; of an Unreadable payload the Unreadable itself."""
    if isinstance(content, Unreadable):
        return content
    return content.get(name) if isinstance(content, dict) else None


def _carefully_encoded(content: Mapping[str, Any], redaction: Redaction | None) -> bytes:
    """Encode content part by part, so that an error can name the part; without secrets."""
    plain = {
        name: value.model_dump(mode="json") if isinstance(value, BaseModel) else value
        for name, value in content.items()
    }
    if redaction is not None:  # first, so that no error shows a secret
        plain = redaction.content(plain)
    for name, value in plain.items():
        _check(name, value, 0)
    return _ENCODE(plain).encode()


def _quickly_encoded(content: dict[str, Any]) -> bytes | None:
    """Encode in one native pass; None for anything unusual, which `_check` then judges."""
    try:
        in_order = _is_in_order(content, -1)
        written = to_json(content) if in_order else _ENCODE(content).encode()
    except (_UnusualError, ValueError):  # ValueError: a lone surrogate
        return None
    return None if b"\\u0000" in written else written


def _is_in_order(content: dict[str, Any] | list[Any], depth: int) -> bool:
    """Whether all names of plain JSON are sorted; raises _UnusualError if it may not be JSON."""
    if depth >= MAX_DEPTH:
        raise _UnusualError
    in_order = True
    values: Iterable[Any] = content
    if isinstance(content, dict):
        in_order, values = _has_sorted_names(content), content.values()
    for value in values:
        kind = type(value)
        if kind in _SCALARS:
            continue
        if kind in _CONTAINERS:
            in_order = _is_in_order(value, depth + 1) and in_order
        elif kind not in _NUMBERS or not -MAX_INT <= value <= MAX_INT:  # NaN is neither
            raise _UnusualError
    return in_order


def _has_sorted_names(content: dict[str, Any]) -> bool:
    in_order, last = True, ""
    for name in content:
        if type(name) is not str:
            raise _UnusualError
        in_order = in_order and last <= name
        last = name
    return in_order


def _check(path: str, value: Any, depth: int) -> None:
    match value:
        case None | bool():
            pass
        case str():
            check_encodable(path, value)
        case int() | float():
            _check_number(path, value)
        case dict() | list() | tuple():
            _check_members(path, value, depth + 1)
        case _:
            raise InvalidValue(
                path,
                value,
                f"a value of type {type(value).__name__} is not JSON:"
                " convert it to text, numbers, lists or objects",
            )


def _check_number(path: str, value: float) -> None:
    if isinstance(value, int):
        if value.bit_length() > MAX_BITS:
            raise InvalidValue(
                path, "...", f"is a whole number of more than {MAX_BITS} bits: write it as text"
            )
    elif not math.isfinite(value):
        raise InvalidValue(
            path, value, "JSON has no NaN and no infinity: leave it out or write it as text"
        )


def _check_members(path: str, value: Any, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise InvalidValue(
            path[:80], "...", f"is nested deeper than {MAX_DEPTH} levels: flatten it"
        )
    if isinstance(value, dict):
        for name, member in value.items():
            if not isinstance(name, str):
                raise InvalidValue(path, name, "JSON objects have text keys")
            check_encodable(path, name)
            _check(f"{path}.{name}", member, depth)
    else:
        for index, member in enumerate(value):
            _check(f"{path}[{index}]", member, depth)
