"""The traceback of an error in the user's own module."""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_OURS: Final = str(Path(__file__).resolve().parents[3])
_IMPORT_SYSTEM: Final = str(Path(importlib.__file__).parent)


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
