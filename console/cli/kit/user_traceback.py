"""The traceback of an error in the user's own module."""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from runfold.console.cli.kit.output import talk
from runfold.ledger.modules import ModuleBroken

_OURS: Final = str(Path(__file__).resolve().parents[3])
_IMPORT_SYSTEM: Final = str(Path(importlib.__file__).parent)


@contextmanager
def broken_module_shown(*, as_json: bool) -> Iterator[None]:
    """Print the traceback of a ModuleBroken that passes; with `as_json` put it into the error."""
    try:
        yield
    except ModuleBroken as error:
        lines = [] if error.__cause__ is None else list(user_traceback(error.__cause__))
        error.traceback = "\n".join(lines)
        for line in () if as_json else lines:
            talk(line)
        raise


def user_traceback(error: BaseException) -> Iterator[str]:
    """Yield an error's traceback line by line, from the first frame of the user's code on."""
    trace = error.__traceback__
    while trace is not None and _is_ours(trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    for text in traceback.format_exception(type(error), error, trace, chain=False):
        yield from text.rstrip("\n").split("\n")


def _is_ours(filename: str) -> bool:
    path = str(Path(filename).resolve())
    return filename.startswith("<frozen importlib") or path.startswith((_OURS, _IMPORT_SYSTEM))
