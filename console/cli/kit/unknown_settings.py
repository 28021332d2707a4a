"""Variables of the environment that look like settings but are not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Final

from runfold.ledger.settings import Settings

_PREFIX: Final = "RUNFOLD_"
_OTHERS: Final = ("RUNFOLD_TEST_", "RUNFOLD_COMPLETE", "RUNFOLD_TOKEN")
"""Variables that are no settings and no mistakes: of tests, of completion, of `runfold mcp`."""


def unknown_settings(environment: Mapping[str, str]) -> Sequence[str]:
    """Return a line for each variable that looks like a setting but is not."""
    known = [f"{_PREFIX}{name.upper()}" for name in Settings.model_fields]
    return [
        f"{name} is not a setting{_suggestion(name, known)}"
        for name in sorted(environment)
        if name.startswith(_PREFIX) and name not in known and not name.startswith(_OTHERS)
    ]


def _suggestion(name: str, known: Sequence[str]) -> str:
    close = [longer for longer in known if longer.startswith(f"{name}_")]
    close = close or get_close_matches(name, known, n=1, cutoff=0.7)
    return f": did you mean {close[0]}?" if close else ""
