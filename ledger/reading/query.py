"""The query grammar of runs: one text for pages, commands and programs (pure).

`state:failed,timeout kind:review -tag:test worker:w7 age:>2h cost:>0.5 attempts:>1 since:24h`
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final
from uuid import UUID

from runfold.ledger.errors import InvalidValue
from runfold.ledger.lifecycle import State
from runfold.ledger.reading.query_words import Word, quoted, words
from runfold.ledger.validation import MAX_COST_USD, MAX_DURATION, MAX_INT, check_text

SIGNS: Final = ("<", "<=", ">", ">=", "=")
MIN_DIGITS: Final = 6
"""Digits from which on free text can be the start of a run id."""
_COMPARED: Final = re.compile(r"(<=|>=|<|>|=)?+(.+)", re.DOTALL)
_DURATION: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(s|m|h|d|w)")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_AMOUNT: Final = re.compile(r"[0-9]{1,10}(?:\.[0-9]{1,6})?")
_NUMBER: Final = re.compile(r"[0-9]{1,10}")
_ID: Final = re.compile(r"[0-9a-f]{6,32}")
_NO_COLON: Final = re.compile(r"-?([a-z]+)[=<>]")
_OPPOSITE: Final = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}


@dataclass(frozen=True, slots=True)
class Choice:
    """A column has one of the values; with `negated`, none. For `tags`: any tag of the run."""

    column: str
    values: tuple[str, ...]
    negated: bool = False
    word: Word | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Bound:
    """A comparison of a column with a value; `sign` is one of SIGNS."""

    column: str
    sign: str
    value: Decimal | int
    word: Word | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Query:
    """The conditions of a query; a run must meet all of them.

    `after`, `until`: runs submitted at or after the one, and before the other. `first_id`,
    `last_id`: the least and the greatest id with the prefix that the query names.
    """

    text: str = ""
    after: datetime | None = None
    until: datetime | None = None
    first_id: UUID | None = None
    last_id: UUID | None = None
    choices: tuple[Choice, ...] = ()
    bounds: tuple[Bound, ...] = ()


def parse(text: str, now: datetime | None = None) -> Query:
    """Return the query of a text; its times count back from `now`, by default this moment.

    Raises InvalidQuery, which names the word, its position and the remedy.
    """
    query = Query(text=text.strip())
    moment = now or datetime.now(UTC)
    seen: set[str | None] = set()
    for word in words(text):
        if word.field in seen - _REPEATED:
            raise word.refused(
                f"{word.field or 'text'} is named twice: join the values by a comma in one word"
            )
        seen.add(word.field)
        query = _FIELDS.get(word.field, _unknown)(query, word, moment)
    return query


Clause = Callable[[Query, Word, datetime], Query]


def _unknown(_query: Query, word: Word, _now: datetime) -> Query:
    known = ", ".join(name for name in _FIELDS if name)
    raise word.refused(f"there is no field {word.field!r}; fields: {known}; quote a text with a :")


def _state(query: Query, word: Word, _now: datetime) -> Query:
    for value in word.values:
        if value not in _STATES:
            raise word.refused(f"{value!r} is not a state; states: {', '.join(_STATES)}")
    states = tuple(name for name in _STATES if (name in word.values) is not word.negated)
    if not states:
        raise word.refused("no state is left")
    return _choosing(query, Choice("state", states, word=word))


def _choice(column: str) -> Clause:
    def read(query: Query, word: Word, _now: datetime) -> Query:
        return _choosing(query, Choice(column, _texts(word), word.negated, word))

    return read


def _compared(column: str, pattern: re.Pattern[str], most: int, what: str) -> Clause:
    def read(query: Query, word: Word, _now: datetime) -> Query:
        sign, value = _comparison(word)
        if not pattern.fullmatch(value) or Decimal(value) > most:
            raise word.refused(f"must be {what}, such as {word.field}:>1")
        number = Decimal(value) if column == "cost_usd" else int(value)
        bound = Bound(column, sign or "=", number, word)
        return replace(query, bounds=(*query.bounds, bound))

    return read


def _age(query: Query, word: Word, now: datetime) -> Query:
    sign, value = _comparison(word)
    if sign not in _OPPOSITE:
        raise word.refused("say older or younger: age:>2h or age:<1d")
    then = now - _duration(word, value)
    return _later(query, then) if sign.startswith("<") else _earlier(query, then)


def _since(query: Query, word: Word, now: datetime) -> Query:
    return _later(query, _instant(word, now))


def _until(query: Query, word: Word, now: datetime) -> Query:
    return _earlier(query, _instant(word, now))


def _id(query: Query, word: Word, _now: datetime) -> Query:
    value = _only(word).lower().replace("-", "")
    if not _ID.fullmatch(value):
        raise word.refused(f"must be a run id, or its first {MIN_DIGITS} digits or more")
    if query.first_id is not None:
        raise word.refused("another id is named before: leave one out")
    return replace(query, first_id=UUID(value.ljust(32, "0")), last_id=UUID(value.ljust(32, "f")))


def _text(query: Query, word: Word, now: datetime) -> Query:
    """Read free text as the start of a run id if it can be one, else as a key."""
    value = word.values[0].lower().replace("-", "")
    if len(word.values) == 1 and not word.negated and _ID.fullmatch(value):
        return _id(query, word, now)
    if word.values[0] in _STATES:
        raise word.refused(f"means a key: write state:{word.values[0]} for a state")
    mistaken = _NO_COLON.match(word.text)
    if mistaken and mistaken[1] in _FIELDS:
        key = quoted(word.values[0])
        raise word.refused(f"means a key: write {mistaken[1]}:… for the field, or {key}")
    return _choice("key")(query, word, now)


_STATES: Final = tuple(state.value for state in State)
_FIELDS: Final[dict[str | None, Clause]] = {
    "state": _state,
    "kind": _choice("kind"),
    "tag": _choice("tags"),
    "worker": _choice("worker_id"),
    "key": _choice("key"),
    "error": _choice("error_code"),
    "id": _id,
    "since": _since,
    "until": _until,
    "age": _age,
    "cost": _compared("cost_usd", _AMOUNT, MAX_COST_USD, "an amount of US dollars"),
    "attempts": _compared("attempt_count", _NUMBER, MAX_INT, "a whole number"),
    None: _text,
}


_REPEATED: Final = frozenset({"tag", "since", "until", "age", "cost", "attempts"})
"""Fields that may appear more than once: every word narrows the query."""


def _choosing(query: Query, choice: Choice) -> Query:
    return replace(query, choices=(*query.choices, choice))


def _later(query: Query, then: datetime) -> Query:
    return replace(query, after=then if query.after is None else max(query.after, then))


def _earlier(query: Query, then: datetime) -> Query:
    return replace(query, until=then if query.until is None else min(query.until, then))


def _only(word: Word) -> str:
    if word.negated:
        raise word.refused("cannot be negated")
    if len(word.values) > 1:
        raise word.refused("takes one value")
    return word.values[0]


def _texts(word: Word) -> tuple[str, ...]:
    try:
        return tuple(check_text(word.field or "text", value) for value in word.values)
    except InvalidValue as error:
        raise word.refused(error.remedy) from None


def _comparison(word: Word) -> tuple[str | None, str]:
    match = _COMPARED.fullmatch(_only(word))
    if match is None:  # a sign alone
        raise word.refused("a value is missing after the sign")
    return match[1], match[2]


def _duration(word: Word, text: str) -> timedelta:
    match = _DURATION.fullmatch(text)
    seconds = float(match[1]) * _SECONDS[match[2]] if match else -1
    if not 0 <= seconds <= MAX_DURATION.total_seconds():
        raise word.refused(
            f"{text!r} is not a duration of up to {MAX_DURATION.days} days, such as 90s, 5m, 2h, 1d"
        )
    return timedelta(seconds=seconds)


def _instant(word: Word, now: datetime) -> datetime:
    value = _only(word)
    if _DURATION.fullmatch(value):
        return now - _duration(word, value)
    try:
        instant = datetime.fromisoformat(value)
        instant = instant if instant.tzinfo else instant.replace(tzinfo=UTC)
        return instant.astimezone(UTC)
    except (ValueError, OverflowError):
        raise word.refused(
            f"{value!r} is neither a time in UTC such as 2026-01-31 or 2026-01-31T12:00Z"
            " nor a duration back from now such as 24h"
        ) from None
