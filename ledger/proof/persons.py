"""Whether two names are those of one person, told offline as the database tells it (pure)."""

from __future__ import annotations

import re
from typing import Final
from unicodedata import normalize

_UNSEEN: Final = re.compile(
    "[\u00ad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160"
    "\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u2800\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U000110bd\U000110cd"
    "\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff]"
)
_BLANKS: Final = re.compile("[ \t\n\v\f\r]+")


def person(name: str) -> str:
    """Return a name as persons are compared; `ledger.person` finds equal whatever this does.

    A letter stays as it is where its lower case is several: servers differ about those, and a check
    must not find a fault in what a server has rightly accepted.
    """
    seen = normalize("NFKC", _UNSEEN.sub("", name))
    lower = "".join(map(_lower, _BLANKS.sub(" ", seen).strip(" ")))
    return normalize("NFKC", lower.replace("\u00df", "ss").replace("\u03c2", "\u03c3"))


def _lower(letter: str) -> str:
    lower = letter.lower()
    return lower if len(lower) == 1 else letter
