"""When a cron expression is due, in a time zone and across its changes of the clock (pure)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from runfold.ledger.errors import InvalidValue
from runfold.ledger.validation import check_text

FIELDS = 5
_OF_THE_MACHINE: Final = {"localtime", "posixrules"}


def check_cron(cron: object, timezone: object) -> tuple[str, str]:
    """Return both; raise InvalidValue unless the expression is ever due and the zone is known."""
    text, zone = check_text("cron", cron), check_text("timezone", timezone)
    next_due(text, zone, datetime(2024, 1, 1, tzinfo=UTC))
    return text, zone


def next_due(cron: str, timezone: str, after: datetime) -> datetime:
    """Return the first due time after a moment, in UTC. Raises InvalidValue."""
    start = after.astimezone(_zone(timezone))
    # In an hour that comes twice, the expression's time may be the first one's: before the moment.
    return next(due for due in _from(cron, start, reverse=False) if due > after)


def latest_due(cron: str, timezone: str, until: datetime) -> datetime:
    """Return the last due time up to and including a moment, in UTC. Raises InvalidValue."""
    minute = until.astimezone(UTC).replace(second=0, microsecond=0) + timedelta(minutes=1)
    latest = next(_from(cron, minute.astimezone(_zone(timezone)), reverse=True))
    # Backwards, an hour that comes twice is passed over as a whole: look forward from there.
    while (later := next_due(cron, timezone, latest)) <= until:
        latest = later
    return latest


def _from(cron: str, start: datetime, *, reverse: bool) -> Iterator[datetime]:
    if len(cron.split()) != FIELDS:
        raise InvalidValue(
            "cron",
            cron,
            "must have five fields: minute, hour, day of the month, month, day of the week",
        )
    try:
        for due in CronSim(cron, start, reverse=reverse):
            yield due.astimezone(UTC)
    except CronSimError as error:
        raise InvalidValue("cron", cron, f"is not a cron expression: {error}") from error
    raise InvalidValue("cron", cron, "is never due")


def _zone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC
    if name in _OF_THE_MACHINE:
        raise InvalidValue(
            "timezone", name, "is another zone on each machine: use a name such as Europe/Berlin"
        )
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError):
        raise InvalidValue(
            "timezone", name, "is not a known time zone: use a name such as Europe/Berlin, or UTC"
        ) from None
