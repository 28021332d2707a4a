"""Errors of handlers as content of the history, and as a line of the log."""

from __future__ import annotations

import re
import traceback
from pathlib import Path
from typing import Any, Final

from runfold.ledger.payload import PayloadRules

MAX_MESSAGE: Final = 1_000
MAX_TRACEBACK: Final = 8_000
_PLACE: Final = re.compile(r'^  File "(.+)", line (\d+), in (.+)$', re.MULTILINE)
_HERE: Final = str(Path(__file__).parent)


def failure(error: BaseException, rules: PayloadRules) -> dict[str, str]:
    """Return an error as bounded JSON: type, message, and traceback without Runfold's frames.

    It has no secrets, also where it is shown before it is stored.
    """
    trace = error.__traceback__
    while (
        trace is not None
        and trace.tb_next is not None
        and trace.tb_frame.f_code.co_filename.startswith(_HERE)
    ):
        trace = trace.tb_next
    lines = "".join(traceback.format_exception(type(error), error, trace, limit=-20))
    room = rules.limit_bytes // 16  # a character takes up to six bytes of JSON
    return {
        "type": type(error).__name__,
        "message": storable(_message(error, rules), min(MAX_MESSAGE, room)),
        "traceback": storable(
            _redacted(lines[-4 * MAX_TRACEBACK :], rules), min(MAX_TRACEBACK, room), end=True
        ),
    }


def for_the_log(error: BaseException, rules: PayloadRules) -> str:
    """Return an error with its whole traceback, bounded and without secrets."""
    text = "".join(traceback.format_exception(error, limit=-20))
    return storable(_redacted(text[-4 * MAX_TRACEBACK :], rules), MAX_TRACEBACK, end=True)


def summary(detail: Any) -> str:
    """Return the detail of a failure in one line: type, message and the innermost place."""
    if detail is None:
        return "the handler gave none"
    if not isinstance(detail, dict) or not isinstance(detail.get("traceback"), str):
        return str(detail)[:MAX_MESSAGE]
    places = _PLACE.findall(detail["traceback"])
    place = " ({}:{} in {})".format(*places[-1]) if places else ""
    return f"{detail.get('type')}: {detail.get('message')}{place}"


def described(error: BaseException, rules: PayloadRules) -> str:
    """Return an error's message as bounded content without secrets."""
    return storable(_message(error, rules), max(rules.limit_bytes // 16, 8))


def _message(error: BaseException, rules: PayloadRules) -> str:
    return _redacted(_shown(error)[: 4 * MAX_MESSAGE], rules)


def _redacted(text: str, rules: PayloadRules) -> str:
    return text if rules.redaction is None else rules.redaction.text(text, "error_detail")


def _shown(error: BaseException) -> str:
    """Return an error's message, also if its class fails to give one."""
    try:
        return str(error)
    except Exception:
        return f"<its message cannot be shown: {type(error).__name__}.__str__ raises>"


def storable(text: str, limit: int, *, end: bool = False) -> str:
    """Return text that PostgreSQL can store, cut to its beginning, or to its end."""
    text = text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()
    if len(text) <= limit:
        return text
    return "..." + text[3 - limit :] if end else text[: limit - 3] + "..."
