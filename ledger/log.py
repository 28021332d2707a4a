"""The ledger's log, through structlog: quiet until the program configures structlog."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from typing import Any

import structlog


class Lines(structlog.WriteLogger):
    """Writes each line in one piece; a log that nobody reads any more fails no caller."""

    def msg(self, message: str) -> None:
        """Write a line."""
        with suppress(OSError, ValueError):
            super().msg(message)

    log = debug = info = warn = warning = error = critical = fatal = failure = err = exception = msg


def info_is_on(logger: Any) -> bool:
    """Whether INFO is on; if not, callers skip building thousands of lines a second."""
    # Of the class: a generic logger has every method, and would log the name of this one.
    enabled = getattr(type(logger), "is_enabled_for", None)
    return enabled is None or bool(enabled(logger, logging.INFO))


def logger(**bound: Any) -> Any:
    """Return a logger with these values bound.

    A program that has not configured structlog sees warnings and errors, on standard error.
    """
    if structlog.is_configured():
        return structlog.get_logger("runfold").bind(**bound)
    quiet = structlog.wrap_logger(
        Lines(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
    )
    return quiet.bind(**bound)
