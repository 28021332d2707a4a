"""Checks of a caller's values, made once, on the way in; each raises an InvalidValue."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Final
from urllib.parse import urlsplit
from uuid import UUID

from runfold.ledger.errors import InvalidValue
from runfold.ledger.months import FIRST_YEAR, LAST_YEAR
from runfold.ledger.redaction import Redaction

MAX_TEXT: Final = 200
MAX_REASON: Final = 2_000
"""Characters of the reason for a change of kinds, roles, rights, users or webhooks."""
MAX_INT: Final = 2_147_483_647
MAX_COST_USD: Final = 1_000_000_000
MAX_DURATION: Final = timedelta(days=3650)
MAX_LEASE: Final = timedelta(days=1)
"""What needs a run for longer sends heartbeats."""
LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
"""The names of this machine in URLs."""

_NUMBERS: Final = frozenset({int, float, Decimal})
_NOTHING: Final = Decimal("0.000000")
_MICRO: Final = Decimal("0.000001")
CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2066-\u2069\ufeff]")
"""Controls, signs of direction and characters without width; `ledger.check_texts` has the same."""
_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")


def check_encodable(name: str, value: str) -> None:
    """Raise InvalidValue for text that PostgreSQL cannot store."""
    if "\x00" in value:
        raise InvalidValue(name, value, "contains NUL, which PostgreSQL cannot store: remove it")
    if _SURROGATE.search(value):
        raise InvalidValue(
            name, value, "contains a lone surrogate, which is not Unicode text: decode it properly"
        )


def check_text(name: str, value: object, *, limit: int = MAX_TEXT) -> str:
    """Return short text; raise InvalidValue unless it has 1 to `limit` printable characters."""
    if not isinstance(value, str):
        raise InvalidValue(name, value, "must be text")
    if value.isascii() and value.isprintable() and 0 < len(value) <= limit:  # nearly always
        return value
    check_encodable(name, value)
    if not 0 < len(value) <= limit:
        raise InvalidValue(name, value, f"must have 1 to {limit} characters, not {len(value)}")
    if CONTROL.search(value):
        raise InvalidValue(name, value, "must not contain control characters")
    return value


def check_list(name: str, values: object, members: str) -> None:
    """Raise InvalidValue unless `values` is a list; a text, which would give letters, is not."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise InvalidValue(name, values, f"must be a list of {members}")


def check_trimmed(name: str, value: object) -> str:
    """Return short text without blanks at its ends, which would make one name look like two.

    Raises InvalidValue.
    """
    text = check_text(name, value)
    if text != text.strip():
        raise InvalidValue(name, value, "must not begin or end with a blank")
    return text


def check_actor(value: object, name: str = "actor") -> str:
    """Validate an actor's name and return it. Raises InvalidValue."""
    return check_trimmed(name, value)


def check_reason(value: object) -> str | None:
    """Return a reason; raise InvalidValue unless it is text. Its length is limited as content."""
    if value is not None and not isinstance(value, str):
        raise InvalidValue("reason", value, "must be text")
    return value


def order_reason(value: str | None, redaction: Redaction | None) -> str | None:
    """Return a reason as the control history keeps it: without secrets. Raises InvalidValue."""
    if value is not None and redaction is not None:
        value = redaction.text(value, "reason")
    return None if value is None else check_text("reason", value, limit=MAX_REASON)


def check_int(name: str, value: object, *, least: int, most: int = MAX_INT) -> int:
    """Return a whole number; raise InvalidValue unless it is within the limits."""
    if type(value) is int and least <= value <= most:  # nearly always
        return value
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidValue(name, value, "must be a whole number")
    if not least <= value <= most:
        raise InvalidValue(name, value, f"must be {least} to {most}")
    return value


def check_cost(name: str, value: object) -> Decimal:
    """Return US dollars as a decimal with six places; raise InvalidValue unless it is finite."""
    if not value and type(value) in _NUMBERS:  # nearly always
        return _NOTHING
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise InvalidValue(name, value, "must be a number of US dollars")
    try:
        cost = (
            Decimal(str(value)).quantize(_MICRO) if -MAX_COST_USD <= value <= MAX_COST_USD else None
        )
    except InvalidOperation:  # a decimal that is not a number
        cost = None
    if cost is None:
        raise InvalidValue(
            name, value, f"must be a finite number of US dollars, at most {MAX_COST_USD:,}"
        )
    return cost


def check_correction(token: int | None, name: str, amount: Decimal | int | None) -> None:
    """Raise InvalidValue for a cost or steps below zero without the token of a lease."""
    if token is None and amount is not None and amount < 0:
        raise InvalidValue(name, amount, "may be below zero only from the holder of the lease")


def check_duration(name: str, value: object, *, positive: bool = False) -> timedelta:
    """Return seconds or a timedelta as a timedelta; raise InvalidValue outside 0 to ten years."""
    duration = value
    # NaN is within no limit.
    if (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and abs(value) <= MAX_DURATION.total_seconds()
    ):
        duration = timedelta(seconds=value)
    if not isinstance(duration, timedelta):
        raise InvalidValue(
            name, value, f"must be seconds or a timedelta, at most {MAX_DURATION.days} days"
        )
    if duration < timedelta(0) or duration > MAX_DURATION or (positive and not duration):
        least = "more than 0" if positive else "0 or more"
        raise InvalidValue(name, value, f"must be {least} and at most {MAX_DURATION.days} days")
    return duration


def check_seconds(name: str, value: object, *, positive: bool = False) -> float:
    """Return what check_duration takes in seconds; raise InvalidValue as it does."""
    return check_duration(name, value, positive=positive).total_seconds()


def check_lease_time(name: str, value: object) -> timedelta:
    """Return seconds or a timedelta as a timedelta; raise InvalidValue unless it is up to a day."""
    lifetime = check_duration(name, value, positive=True)
    if lifetime > MAX_LEASE:
        raise InvalidValue(name, value, "must be at most a day: heartbeats extend a lease")
    return lifetime


def is_secure(url: str, *, loopback: bool) -> bool:
    """Whether a URL is https, without user, query and fragment.

    `loopback`: http to an address of this machine will do as well.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    plain = parts._replace(query="", fragment="").geturl() == url and "@" not in parts.netloc
    near = parts.scheme == "http" and host in LOOPBACK and loopback
    return plain and bool(host) and url.isprintable() and (parts.scheme == "https" or near)


def check_aware(name: str, value: object) -> datetime:
    """Return a time; raise InvalidValue unless it is a datetime with a time zone."""
    if not isinstance(value, datetime):
        raise InvalidValue(name, value, "must be a datetime")
    if value.tzinfo is None:
        raise InvalidValue(name, value.isoformat(), "has no time zone: use an aware datetime")
    return value


def check_instant(name: str, value: object) -> datetime:
    """Return an aware time; raise InvalidValue for one that check_times.sql refuses too."""
    moment = check_aware(name, value)
    if not FIRST_YEAR <= moment.year <= LAST_YEAR:
        raise InvalidValue(
            name, moment.isoformat(), f"must be in the years {FIRST_YEAR} to {LAST_YEAR}"
        )
    return moment


def check_run_id(value: object) -> UUID:
    """Return a run id as a UUID; raise InvalidValue unless it is a UUIDv7."""
    if isinstance(value, str):
        try:
            value = UUID(value)
        except ValueError:
            raise InvalidValue(
                "run id", value, "is not a UUID: copy it from `runfold runs`"
            ) from None
    if not isinstance(value, UUID):
        raise InvalidValue("run id", value, "must be a UUID or its text")
    if value.version != 7:  # noqa: PLR2004  the version that the ledger makes
        raise InvalidValue(
            "run id",
            str(value),
            "is not a UUIDv7, so no ledger made it: copy it from `runfold runs`",
        )
    return value
