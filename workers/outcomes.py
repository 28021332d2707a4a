"""How an attempt may end: outcomes as values, the backoff, and errors as content."""

from __future__ import annotations

import random
import re
import traceback
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from runfold.ledger.errors import InvalidValue
from runfold.ledger.lifecycle import HANDLER_FAILED
from runfold.ledger.validation import check_duration

MAX_EXPONENT: Final = 64
MAX_MESSAGE: Final = 1_000
MAX_TRACEBACK: Final = 8_000
_PLACE: Final = re.compile(r'^  File "(.+)", line (\d+), in (.+)$', re.MULTILINE)
_HERE: Final = str(Path(__file__).parent)


@dataclass(frozen=True, slots=True)
class Fail:
    """End the run as failed, whatever attempts are left; `detail` is JSON."""

    error_code: str
    detail: Any = None


@dataclass(frozen=True, slots=True)
class Retry:
    """Try again `after` this time (None: by the kind's backoff); failed if no attempt is left."""

    after: float | timedelta | None = None
    error_code: str = HANDLER_FAILED
    detail: Any = None


@dataclass(frozen=True, slots=True)
class Cancel:
    """Call the run off from within."""

    reason: str | None = None


OUTCOMES: Final = (Fail, Retry, Cancel)


@dataclass(frozen=True, slots=True)
class Backoff:
    """The time before the next attempt: `first`, times `factor` each attempt, at most `limit`.

    `jitter` is the part of the delay that is left to chance, so that runs that failed together do
    not come back together. Raises InvalidValue.
    """

    first: float | timedelta = 1.0
    factor: float = 2.0
    limit: float | timedelta = 300.0
    jitter: float = 0.25

    def __post_init__(self) -> None:
        """Refuse what cannot be a backoff."""
        check_duration("first", self.first)
        check_duration("limit", self.limit)
        if not 1 <= self.factor <= 100:  # noqa: PLR2004  beyond it, a delay is the limit
            raise InvalidValue("factor", self.factor, "must be 1 to 100")
        if not 0 <= self.jitter <= 1:
            raise InvalidValue("jitter", self.jitter, "must be 0 to 1")

    def delay(self, attempt: int) -> float:
        """Return the seconds to wait after attempt number `attempt` failed."""
        first, limit = (
            check_duration("backoff", one).total_seconds() for one in (self.first, self.limit)
        )
        whole = min(limit, first * self.factor ** min(attempt - 1, MAX_EXPONENT))
        return whole * (1 - self.jitter * random.random())  # noqa: S311  a delay, not a secret


def failure(error: BaseException, limit_bytes: int) -> dict[str, str]:
    """Return an error as bounded JSON: type, message, and traceback without Runfold's frames."""
    trace = error.__traceback__
    while (
        trace is not None
        and trace.tb_next is not None
        and trace.tb_frame.f_code.co_filename.startswith(_HERE)
    ):
        trace = trace.tb_next
    lines = "".join(traceback.format_exception(type(error), error, trace, limit=-20))
    room = limit_bytes // 16  # a character takes up to six bytes of JSON
    return {
        "type": type(error).__name__,
        "message": plain(said(error), min(MAX_MESSAGE, room)),
        "traceback": plain(lines, min(MAX_TRACEBACK, room), end=True),
    }


def summary(detail: Any) -> str:
    """Return the detail of a failure in one line: type, message and the innermost place."""
    if not isinstance(detail, dict) or not isinstance(detail.get("traceback"), str):
        return str(detail)[:MAX_MESSAGE]
    places = _PLACE.findall(detail["traceback"])
    place = " ({}:{} in {})".format(*places[-1]) if places else ""
    return f"{detail.get('type')}: {detail.get('message')}{place}"


def said(error: BaseException) -> str:
    """Return an error's message, also if its class fails to give one."""
    try:
        return str(error)
    except Exception:
        return f"<its message cannot be shown: {type(error).__name__}.__str__ raises>"


def plain(text: str, limit: int, *, end: bool = False) -> str:
    """Return text that PostgreSQL can store, cut to its beginning, or to its end."""
    text = text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()
    if len(text) <= limit:
        return text
    return "..." + text[3 - limit :] if end else text[: limit - 3] + "..."
