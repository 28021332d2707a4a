"""Values as text for people and programs; no content of a run can steer a terminal."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

_UNSAFE: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_UNSEEN: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2065\u2800\u3164\ufe00-\ufe0f\uffa0"
    "\ufff0-\ufff8\U000e0000-\U000e0fff]"
)
"""Letters, marks and signs that leave no trace of ink; `ledger.person` overlooks them, too."""
_JSON: Final = frozenset({str, int, bool, type(None)})
_UNUSUAL: Final = re.compile("[^ -~]")
_HOUR: Final = 3600
_MINUTE: Final = 60
_DAY: Final = 86_400


def clean(value: object, *, multiline: bool = False) -> str:
    """Return a value on one line (or several); what steers or hides text is escaped."""
    return _escaped(str(value), lambda char: ascii(char)[1:-1], multiline=multiline)


def _escaped(text: str, escape: Callable[[str], str], *, multiline: bool = False) -> str:
    line = text.replace("\n", "") if multiline else text
    if line.isprintable() and not _UNSEEN.search(text):  # nearly always
        return text
    before = f" {text}"

    def seen(match: re.Match[str]) -> str:
        char = match[0]
        is_safe = _is_safe(char, before[match.start()], multiline=multiline)
        return char if is_safe else escape(char)

    return _UNUSUAL.sub(seen, text)


def _is_safe(char: str, before: str, *, multiline: bool) -> bool:
    if char == "\ufe0f":  # it makes a symbol an emoji, and is hidden after anything else
        return unicodedata.category(before) in {"So", "Sm"}
    if _UNSEEN.match(char):
        return False
    return (multiline and char == "\n") or unicodedata.category(char) not in _UNSAFE


def moment(value: datetime) -> str:
    """Return an instant in UTC with milliseconds."""
    return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + "Z"


def span(value: timedelta) -> str:
    """Return a length of time in its two largest units."""
    exact = abs(value.total_seconds())
    if exact < 0.9995:  # noqa: PLR2004  above, it rounds to a second
        return f"{exact * 1000:.0f}ms"
    if exact < 9.95:  # noqa: PLR2004  two digits are enough
        return f"{exact:.1f}s"
    seconds = round(exact)
    if seconds < _MINUTE:
        return f"{seconds}s"
    if seconds < _HOUR:
        return f"{seconds // _MINUTE}m{seconds % _MINUTE:02}s"
    if seconds < _DAY:
        return f"{seconds // _HOUR}h{seconds % _HOUR // _MINUTE:02}m"
    return f"{seconds // _DAY}d{seconds % _DAY // _HOUR:02}h"


def relative(value: datetime, now: datetime | None = None) -> str:
    """Return how far an instant is from now."""
    away = value - (now or datetime.now(UTC))
    return f"in {span(away)}" if away > timedelta(0) else f"{span(away)} ago"


def number_of(number: int, noun: str) -> str:
    """Return a number with its noun, such as 1 run or 2,000 runs."""
    return f"{number:,} {noun}" if abs(number) == 1 else f"{number:,} {noun}s"


def money(value: Decimal) -> str:
    """Return an amount in US dollars without needless zeros."""
    text = f"{value:f}".rstrip("0").rstrip(".") if "." in f"{value:f}" else f"{value:f}"
    return f"${text or '0'}"


def pretty(value: object) -> str:
    """Return content as indented JSON that is safe to show."""
    return clean(json.dumps(jsonable(value), indent=2, ensure_ascii=False), multiline=True)


def compact(value: object, width: int = 80) -> str:
    """Return content as one line of JSON, cut at `width`."""
    text = clean(json.dumps(jsonable(value), ensure_ascii=False))
    return text if len(text) <= width else text[: width - 1] + "…"


def safe_json(value: object, *, ascii_only: bool = False) -> str:
    """Return a value as one line of JSON; what steers or hides text is escaped as JSON does."""
    text = json.dumps(jsonable(value), ensure_ascii=ascii_only, allow_nan=False)
    return _escaped(text, lambda char: json.dumps(char)[1:-1])


def jsonable(value: object) -> Any:
    """Return a value as JSON can hold it: times in UTC, amounts as text, bytes as hex."""
    if type(value) in _JSON:  # nearly always
        return value
    match value:
        case Mapping():
            return {str(key): jsonable(inner) for key, inner in value.items()}
        case list() | tuple() | set() | frozenset():
            return [jsonable(inner) for inner in value]
        case _ if is_dataclass(value) and not isinstance(value, type):
            return {field.name: jsonable(getattr(value, field.name)) for field in fields(value)}
        case _:
            return _scalar(value)


def _scalar(value: object) -> object:
    match value:
        case None | bool() | int():
            return value
        case float() if math.isfinite(value):
            return value
        case datetime() if value.tzinfo is not None:
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case timedelta():
            return value.total_seconds()
        case bytes() | bytearray() | memoryview():
            return bytes(value).hex()
        case _:
            return str(value)
