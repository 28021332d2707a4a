"""A progress bar on standard error, shown only on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from rich import progress as bars

from runfold.console.cli.kit.output import console

Progress: TypeAlias = Callable[[int], None]
"""Takes how many are done; of how many is unknown, as counting would take a long snapshot."""


@contextmanager
def progress(label: str, unit: str, *, shown: bool) -> Iterator[Progress | None]:
    """Yield a function that moves the bar; None if no bar is shown."""
    if not shown or not sys.stderr.isatty():
        yield None
        return
    columns = (
        bars.TextColumn(label),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TextColumn(unit),
    )
    with bars.Progress(*columns, console=console(sys.stderr), transient=True) as bar:
        task = bar.add_task(unit, total=None)
        yield lambda done: bar.update(task, completed=done)
