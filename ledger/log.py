"""The ledger's log events, through structlog: names in one place, quiet until the program configures structlog."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from typing import Any

import structlog


class Lines(structlog.WriteLogger):
    """Writes a line at a time, each in one piece; who logs does not fail because nobody reads the log any more."""

    def msg(self, message: str) -> None:
        """Write a line."""
        with suppress(OSError, ValueError):
            super().msg(message)

    log = debug = info = warn = warning = error = critical = fatal = failure = err = exception = msg


def tells(logger: Any) -> bool:
    """Tell whether a logger writes what is no warning: for one that does not, no line of thousands a second is put together."""
    enabled = getattr(
        type(logger), "is_enabled_for", None
    )  # of the class: a generic logger has every method, and would log it
    return enabled is None or bool(enabled(logger, logging.INFO))


def logger(**bound: Any) -> Any:
    """Give a logger with these values bound.

    A program that has not configured structlog sees warnings and errors, on standard error.
    """
    if structlog.is_configured():
        return structlog.get_logger("runfold").bind(**bound)
    quiet = structlog.wrap_logger(
        Lines(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
    )
    return quiet.bind(**bound)
