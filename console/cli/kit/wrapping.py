"""Wrap text that is too long for a terminal, between facts where possible, without loss."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Final

from rich.text import Text

_JOINT: Final = "  "
_BESIDE: Final = 24
"""Columns that must be left beside the head for the facts to begin on its line."""

_BELOW: Final = 6


def entry(head: Text, facts: str, width: int) -> list[Text]:
    """Return the lines of a head and its facts; the facts hang under their beginning.

    They begin below the head where there is no room beside it.
    """
    if not facts:
        head.rstrip()
        return _cropped(head, width)
    column = head.cell_len
    if width - column < _BESIDE and column + len(facts) > width:
        head.rstrip()
        return [
            *_cropped(head, width),
            *(Text(" " * _BELOW + line) for line in fill(facts, width - _BELOW)),
        ]
    first, *rest = fill(facts, width - column)
    return [head.append(first, style="not bold"), *(Text(" " * column + line) for line in rest)]


def fill(text: str, width: int) -> Sequence[str]:
    """Return a text's lines; facts that are two blanks apart stay whole if they fit a line."""
    lines = [""]
    for part in text.split(_JOINT):
        joint = _JOINT if lines[-1] else ""
        if len(lines[-1]) + len(joint) + len(part) <= width:
            lines[-1] += joint + part
        elif len(part) <= width:
            lines.append(part)
        else:
            lines += textwrap.wrap(part, width)
    return [line for line in lines if line] or [""]


def _cropped(head: Text, width: int) -> list[Text]:
    """Return a head in as many lines as it needs, broken at blanks."""
    if head.cell_len <= width:
        return [head]
    lines, rest = [], head
    while rest.cell_len > width:
        indent = len(rest.plain) - len(rest.plain.lstrip())
        cut = rest.plain.rfind(" ", indent, width + 1)
        cut = cut if cut > 0 else width  # a word that is longer than a line is broken
        line, rest = rest.divide([cut])
        line.rstrip()
        lines.append(line)
        rest = Text.assemble("  ", rest[len(rest.plain) - len(rest.plain.lstrip()) :])
    return [*lines, rest]
