"""Output: data on standard output, talk on standard error."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import ClassVar, Final, TextIO

from rich.console import Console
from rich.text import Text

from runfold.console.cli.kit.table import table_lines, whole_lines
from runfold.console.cli.kit.wrapping import entry
from runfold.console.shared.plain import clean, safe_json
from runfold.workers.process import beginning

UNBOUNDED: Final = 100_000
"""Columns of a line that is never wrapped."""

_NARROWEST: Final = 20
EMPTY: Final = "-"
"""The text of a cell without a value."""

COLOURS: Final = {
    "pending": "yellow",
    "running": "cyan",
    "waiting_tool": "magenta",
    "waiting_approval": "bold magenta",
    "completed": "green",
    "failed": "bold red",
    "cancelled": "dim",
    "timeout": "red",
}
"""The colour of each state, on a terminal."""


class Output:
    """Writes data and talk; with `as_json` data is one JSON object a line and talk is silent.

    Every command writes through it, and whatever it writes has control and direction characters
    escaped: no content of a run steers a terminal or forges a line.
    """

    talks: ClassVar[bool] = True
    """False in a process whose parent talks to people."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    def json(self, value: object) -> None:
        """Write one JSON object on a line of its own."""
        _write(safe_json(value, ascii_only=sys.stdout.isatty()))

    def line(self, line: Text | str) -> None:
        """Write one line of data, coloured on a terminal."""
        if not sys.stdout.isatty():
            _write(clean(line))
            return
        shown = safe_text(line) if isinstance(line, Text) else Text(clean(line))
        console(sys.stdout).print(shown, soft_wrap=True)

    def block(self, text: str, indent: str = "") -> None:
        """Write text of several lines, such as indented JSON.

        An indent keeps content with line breaks from looking like other output.
        """
        for line in text.split("\n"):
            self.line(indent + line)

    def entry(self, head: Text, facts: str) -> None:
        """Write a head and its facts: one line, or as many as a terminal needs."""
        width = _width() if sys.stdout.isatty() else UNBOUNDED
        for line in entry(safe_text(head), clean(facts), width):
            self.line(line)

    def table(
        self, titles: Sequence[str], rows: Sequence[Sequence[str]], colours: Sequence[str | None]
    ) -> None:
        """Write rows in aligned columns; a terminal gets no empty columns, and fitting lines."""
        safe = [[clean(cell) for cell in row] for row in rows]
        if not sys.stdout.isatty():
            for line in whole_lines(titles, safe):
                self.line(line)
            return
        every = range(len(titles))
        shown = [n for n in every if any(row[n] != EMPTY for row in safe)] or every
        for line in table_lines(
            [titles[n] for n in shown],
            [[row[n] for n in shown] for row in safe],
            colours,
            _width(),
        ):
            self.line(line)

    def begin(self, text: str) -> None:
        """Announce to people, and to the process that started this one, that a duty has begun."""
        beginning.begun()
        self.talk(text)

    def talk(self, text: str) -> None:
        """Write a line for people on standard error; nothing with `as_json`."""
        if self.talks and not self.as_json:
            talk(text)


def talk(text: str, end: str = "\n") -> None:
    """Write a line for people on standard error; a full disk there must end no work."""
    with suppress(OSError):
        sys.stderr.write(clean(text) + end)
        sys.stderr.flush()


def safe_text(text: Text) -> Text:
    """Return a text with its styles, control and direction characters escaped."""
    if text.plain.isprintable():
        return text
    pieces = text.render(Console(), end="")
    return Text.assemble(*((clean(piece.text), piece.style or "") for piece in pieces))


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _width() -> int:
    """Return the columns of the terminal; a narrower one breaks the lines itself."""
    return max(console(sys.stdout).width, _NARROWEST)


def console(stream: TextIO, width: int | None = None) -> Console:
    """Return a console without markup, emoji codes and highlighting."""
    return Console(file=stream, markup=False, emoji=False, highlight=False, width=width)
