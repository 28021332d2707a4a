"""Tables that fit their terminal: columns without room go on a second line, and no cell is cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from rich.cells import cell_len
from rich.text import Text

from runfold.console.cli.kit.wrapping import fill

_GAP: Final = 2
_INDENT: Final = 4
_WIDE: Final = 40
"""Columns of a cell beyond which its column goes on the second line of each row."""

Rows = Sequence[Sequence[str]]


def table_lines(
    titles: Sequence[str], rows: Rows, colours: Sequence[str | None], width: int
) -> Iterator[Text]:
    """Yield a heading and the rows; columns that do not fit follow each row, by their titles."""
    widths = [
        max(cell_len(title), *(cell_len(row[n]) for row in rows)) if rows else cell_len(title)
        for n, title in enumerate(titles)
    ]
    shown = _fitting(widths, width)
    yield Text(_row(titles, widths, shown), style="bold")
    for row, colour in zip(rows, colours, strict=True):
        yield Text(_row(row, widths, shown), style=colour or "")
        rest = [
            f"{titles[n].lower()} {row[n]}"
            for n in range(len(titles))
            if n not in shown and row[n].strip("-")
        ]
        if rest:
            for line in fill("  ".join(rest), width - _INDENT):
                yield Text(" " * _INDENT + line, style=colour or "")


def _fitting(widths: Sequence[int], width: int) -> list[int]:
    shown, used = [0], widths[0]
    for number, own in list(enumerate(widths))[1:]:
        if own <= _WIDE and used + _GAP + own <= width:
            shown.append(number)
            used += _GAP + own
    return shown


def whole_lines(titles: Sequence[str], rows: Rows) -> Iterator[Text]:
    """Yield a heading and the rows with every column, however wide, for a program or a file."""
    widths = [max(cell_len(cell) for cell in column) for column in zip(titles, *rows, strict=True)]
    for row in (titles, *rows):
        yield Text(_row(row, widths, range(len(titles))))


def _row(cells: Sequence[str], widths: Sequence[int], shown: Sequence[int]) -> str:
    padded = [cells[n] + " " * (widths[n] - cell_len(cells[n])) for n in shown]
    return (" " * _GAP).join(padded).rstrip()
