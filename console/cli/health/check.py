"""The result of one check of `runfold doctor`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeVar

Row = TypeVar("Row")
_SHOWN: Final = 3


class Level(StrEnum):
    """How a check went; only FAILED makes the ledger unhealthy."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Check:
    """What one check found."""

    name: str
    level: Level
    detail: str


def shown(rows: Sequence[Row], describe: Callable[[Row], str]) -> str:
    """Describe the first rows and count the rest."""
    more = f"; {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else ""
    return "; ".join(describe(row) for row in rows[:_SHOWN]) + more
