"""Errors as the user sees them: one line, or one JSON object, and the exit code."""

from __future__ import annotations

import json
import sys
import traceback
from typing import Any

from runfold.console.cli.kit.exits import ERROR, USAGE, exit_code
from runfold.console.shared.plain import clean, jsonable
from runfold.workers.process import beginning


def report(error: Exception, *, as_json: bool, verbose: bool) -> int:
    """Print on standard error what went wrong and return the exit code."""
    usage = getattr(error, "format_message", None)
    if usage is not None:
        return _usage(error, usage(), as_json=as_json)
    # Late, because it loads the ledger: a usage error must not take a second.
    from runfold.console.shared.known_errors import known  # noqa: PLC0415  as above

    expected = known(error)
    if verbose and (expected is None or isinstance(error, OSError)):
        sys.stderr.write(clean("".join(traceback.format_exception(error)), multiline=True))
    if expected is None:
        _print(type(error).__name__, _unexpected(error, verbose=verbose), {}, as_json=as_json)
        return ERROR
    _print(type(expected).__name__, str(expected), _facts(expected), as_json=as_json)
    return exit_code(expected)


def _unexpected(error: Exception, *, verbose: bool) -> str:
    detail = " ".join(str(error).split()) or "no details"
    remedy = "" if verbose else " (--verbose shows where)"
    return f"unexpected {type(error).__name__}: {detail}{remedy}"


def _usage(error: Exception, message: str, *, as_json: bool) -> int:
    context: Any = getattr(error, "ctx", None)
    if context is not None and type(error).__name__ == "NoArgsIsHelpError":
        sys.stdout.write(context.get_help())
        return USAGE
    if context is not None and not as_json:
        message += f" (see `{context.command_path} --help`)"
    _print("Usage", message, {}, as_json=as_json)
    return USAGE


def _facts(error: Exception) -> dict[str, Any]:
    return {name: value for name, value in vars(error).items() if not name.startswith("_")}


def _print(kind: str, message: str, facts: dict[str, Any], *, as_json: bool) -> None:
    beginning.failed(" ".join(message.split()))
    if as_json:
        shown = {**jsonable(facts), "type": kind, "message": message}
        sys.stderr.write(json.dumps({"error": shown}, ensure_ascii=True) + "\n")
    else:
        sys.stderr.write(f"error: {clean(' '.join(message.split()))}\n")
