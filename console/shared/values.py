"""Values from words of the command line: payloads, durations, instants, versions."""

from __future__ import annotations

import json
import re
import shlex
import signal
import sys
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, NoReturn

from runfold.ledger.errors import InvalidValue, LedgerError

_MAIN_THREAD: Final = threading.main_thread()
_PAIR: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_.-]*)(:?=)(.*)", re.DOTALL)
_WORDS: Final = re.compile(r"[^\[{\"\n][^\n]{0,40}")
_DURATION: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)?")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0, None: 1.0}
_VERSION: Final = re.compile(r"#?([0-9]{1,18})")
_DURATIONS: Final = "must be a duration such as 30, 30s, 5m, 2h or 1d"


class Misuse(InvalidValue):
    """Options that do not go together, or one that is missing; nothing was done."""

    def __init__(self, option: str, remedy: str) -> None:
        self.name, self.value, self.remedy = option, None, remedy
        LedgerError.__init__(self, f"{option}: {remedy}")


def payload(words: Sequence[str], name: str = "input") -> object:
    """Return an input: one JSON text, `-` for standard input, or key=text and key:=json pairs.

    Raises InvalidValue.
    """
    if not words:
        return None
    if len(words) == 1 and not _PAIR.fullmatch(words[0]):
        return _parsed(name, _standard_input() if words[0] == "-" else words[0])
    fields: dict[str, object] = {}
    for word in words:
        pair = _PAIR.fullmatch(word)
        if pair is None:
            raise InvalidValue(
                name, word, f"must be key=text or key:=json, or all of the {name} as one JSON text"
            )
        field, sign, value = pair.groups()
        if field in fields:
            raise InvalidValue(name, word, f"names {field} twice")
        fields[field] = value if sign == "=" else _parsed(field, value)
    return fields


def _standard_input() -> str:
    # Within asyncio the first Ctrl-C waits for the loop, which waits for this call.
    handler = signal.getsignal(signal.SIGINT)
    if handler in {signal.SIG_IGN, None} or threading.current_thread() is not _MAIN_THREAD:
        return sys.stdin.read()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return sys.stdin.read()
    finally:
        signal.signal(signal.SIGINT, handler)


def _parsed(name: str, text: str) -> object:
    try:
        return json.loads(text, parse_constant=_no_constant, object_pairs_hook=_distinct)
    except RecursionError:
        raise InvalidValue(name, text, "is nested too deeply") from None
    except ValueError as error:
        quoted = shlex.quote(json.dumps(text, ensure_ascii=False))
        remedy = f"; as a text: {quoted}" if _WORDS.fullmatch(text) else ""
        raise InvalidValue(name, text, f"is not JSON: {error}{remedy}") from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"JSON has no {name}")


def _distinct(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("an object names a key twice")
    return fields


def duration(name: str, text: str | None) -> float | None:
    """Return a duration in seconds; raises InvalidValue."""
    if text is None:
        return None
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise InvalidValue(name, text, _DURATIONS)
    return float(match[1]) * _SECONDS[match[2]]


def deadline(text: str | None, name: str = "deadline") -> float | datetime | None:
    """Return a deadline: a duration from now, or an instant; raises InvalidValue."""
    if text is None or _DURATION.fullmatch(text.strip()):
        return duration(name, text)
    return instant(name, text, or_else=_DURATIONS + ", or")


def version_or_instant(text: str, name: str = "--at") -> int | datetime:
    """Return the version or the instant that an option names; raises InvalidValue."""
    match = _VERSION.fullmatch(text.strip())
    return (
        int(match[1]) if match else instant(name, text, or_else="must be a version such as 3, or")
    )


def instant(name: str, text: str, *, or_else: str = "must be") -> datetime:
    """Return an instant written in ISO 8601 with its time zone; raises InvalidValue."""
    form = f"{or_else} a time with its zone such as 2026-01-31T12:00:00Z"
    value = _time(name, text, form)
    if value.tzinfo is None:
        raise InvalidValue(name, text, f"has no time zone: {form}")
    return value


def day_or_instant(name: str, text: str) -> datetime:
    """Return a day or a time, without a zone in UTC, as an instant in UTC; raises InvalidValue."""
    form = "must be a day or a time such as 2026-01-31 or 2026-01-31T12:00:00Z"
    value = _time(name, text, form)
    try:
        return value.replace(tzinfo=value.tzinfo or UTC).astimezone(UTC)
    except OverflowError:
        raise InvalidValue(name, text, form) from None


def _time(name: str, text: str, form: str) -> datetime:
    try:
        return datetime.fromisoformat(text.strip())
    except ValueError:
        raise InvalidValue(name, text, form) from None
