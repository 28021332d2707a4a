"""Months: the partitions of the event table, by the time that leads a run's UUIDv7 (pure)."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from runfold.ledger.errors import InvalidValue

FIRST_RUN: Final = UUID(int=0)
LAST_RUN: Final = UUID(int=2**128 - 1)
"""Bounds of the ids of all runs."""
FIRST_YEAR: Final = 1970
LAST_YEAR: Final = 9000
"""The years that times given to the ledger may lie in."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MOST_MS: Final = 2**48 - 1
"""The milliseconds that a run id has room for."""
_MONTH: Final = re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])")


def check_month(text: str) -> str:
    """Return the month; raise InvalidValue for a text that names none."""
    if not is_month(text) or text < "1970":
        raise InvalidValue("month", text, "must be a month such as 2026-01")
    return text


def is_month(text: str) -> bool:
    """Whether a text has the form of a month."""
    return _MONTH.fullmatch(text) is not None


def month_of(run_id: UUID) -> str:
    """Name the month, in UTC, in which a run was submitted; "" for an id that bears no time."""
    try:
        return f"{datetime.fromtimestamp((run_id.int >> 80) / 1000, UTC):%Y-%m}"
    except (OverflowError, ValueError, OSError):
        return ""


def start_of(month: str) -> datetime:
    """Return the instant at which a month begins."""
    return datetime(int(month[:4]), int(month[5:]), 1, tzinfo=UTC)


def bounds(month: str) -> tuple[UUID, UUID]:
    """Return the smallest id of a run of this month, and the smallest after the month."""
    begins = start_of(month)
    ends = begins.replace(year=begins.year + begins.month // 12, month=begins.month % 12 + 1)
    return first_run_at(begins), first_run_at(ends)


def first_run_at(instant: datetime) -> UUID:
    """Return the smallest run id of an instant's millisecond: an id begins with its time."""
    milliseconds = (instant - _EPOCH) // timedelta(milliseconds=1)
    return UUID(int=min(max(milliseconds, 0), _MOST_MS) << 80)


def table_of(month: str) -> str:
    """Name the table of the month's events, in schema `ledger`."""
    return f"event_{month[:4]}_{month[5:]}"
