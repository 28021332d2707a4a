"""The words of a query of runs: where each begins, its field and its values (pure)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from runfold.ledger.errors import InvalidQuery
from runfold.ledger.validation import CONTROL

MAX_QUERY: Final = 1_000
"""Characters of a query."""
MAX_WORDS: Final = 20
MAX_VALUES: Final = 20
"""Values of one word."""
_BLANK: Final = re.compile(r"\s*")
_FIELD: Final = re.compile(r"([A-Za-z_]+):")
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_PLAIN: Final = re.compile(r'[^\s",]+')
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Word:
    """One word of a query, as it was written and as it is understood.

    `position` is that of its first character, from 1. `field` None: free text.
    """

    text: str
    position: int
    negated: bool
    field: str | None
    values: tuple[str, ...]

    def refused(self, remedy: str) -> InvalidQuery:
        """Return the error that names this word."""
        return InvalidQuery(self.text, self.position, remedy)


def quoted(value: str) -> str:
    """Return a value as a query writes it, whatever characters it has."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def words(text: str) -> list[Word]:
    """Return the words of a query in their order. Raises InvalidQuery."""
    if len(text) > MAX_QUERY:
        raise InvalidQuery(text[:20], 1, f"a query has at most {MAX_QUERY:,} characters")
    parsed: list[Word] = []
    at = _blank(text, 0)
    while at < len(text):
        if len(parsed) == MAX_WORDS:
            raise InvalidQuery(_rest(text, at), at + 1, f"a query has at most {MAX_WORDS} words")
        word, at = _word(text, at)
        parsed.append(word)
        at = _blank(text, at)
    return parsed


def _word(text: str, start: int) -> tuple[Word, int]:
    at = start
    negated = text.startswith("-", at)
    at += negated
    field = _FIELD.match(text, at)
    at = field.end() if field else at
    values: list[str] = []
    while True:
        value, at = _value(text, start, at)
        values.append(value)
        if not text.startswith(",", at):
            break
        at += 1
    if at < len(text) and not text[at].isspace():
        raise InvalidQuery(_rest(text, start), start + 1, "put a blank after the closing quote")
    if len(values) > MAX_VALUES:
        remedy = f"a word has at most {MAX_VALUES} values"
        raise InvalidQuery(text[start:at], start + 1, remedy)
    name = field[1].lower() if field else None
    return Word(text[start:at], start + 1, negated, name, tuple(values)), at


def _value(text: str, start: int, at: int) -> tuple[str, int]:
    """Return the value at a place, and the place after it."""
    if text.startswith('"', at):
        match = _QUOTED.match(text, at)
        if match is None:
            raise InvalidQuery(_rest(text, start), start + 1, 'close the quotation with "')
        value, end = _ESCAPED.sub(r"\1", match[1]), match.end()
    else:
        plain = _PLAIN.match(text, at)
        if plain is None:
            raise InvalidQuery(_rest(text, start), start + 1, "a value is missing")
        value, end = plain[0], plain.end()
    if not value:
        raise InvalidQuery(text[start:end], start + 1, "a value is empty")
    if CONTROL.search(value):
        raise InvalidQuery(text[start:end], start + 1, "must not contain control characters")
    return value, end


def _blank(text: str, at: int) -> int:
    blank = _BLANK.match(text, at)
    return blank.end() if blank else at


def _rest(text: str, at: int) -> str:
    """Return what begins at a place, up to the next blank."""
    return (text[at:].split() or [""])[0]
