"""Errors as the user sees them: one line, or one JSON object, and the exit code."""

from __future__ import annotations

import errno
import json
import sys
import traceback
from typing import Any, Final

from runfold.console.cli.kit.exits import ERROR, USAGE, exit_code
from runfold.console.cli.kit.plain import clean, jsonable

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


def report(error: Exception, *, as_json: bool, verbose: bool) -> int:
    """Say on standard error what went wrong; give the exit code."""
    usage = getattr(error, "format_message", None)
    if usage is not None:
        return _usage(error, usage(), as_json=as_json)
    known = _known(error)
    if verbose and (known is None or isinstance(error, OSError)):
        traceback.print_exception(error)
    if known is None:
        said = " ".join(str(error).split()) or "no details"
        again = "" if verbose else " (--verbose shows where)"
        _say(
            type(error).__name__,
            f"unexpected {type(error).__name__}: {said}{again}",
            {},
            as_json=as_json,
        )
        return ERROR
    _say(type(known).__name__, str(known), _facts(known), as_json=as_json)
    return exit_code(known)


def _usage(error: Exception, message: str, *, as_json: bool) -> int:
    context: Any = getattr(error, "ctx", None)
    if context is not None and type(error).__name__ == "NoArgsIsHelpError":
        sys.stdout.write(context.get_help())  # with rich, it has been printed already
        return USAGE
    if context is not None and not as_json:
        message += f" (see `{context.command_path} --help`)"
    _say("Usage", message, {}, as_json=as_json)
    return USAGE


def _known(error: Exception) -> Exception | None:
    """Give the ledger's error for what was raised, None for what nobody foresaw."""
    import asyncpg

    from runfold.ledger.errors import LedgerError
    from runfold.ledger.postgres.connections import translated

    if isinstance(error, LedgerError):
        return error
    if type(error).__module__.startswith("sqlalchemy"):  # by name: importing it takes a second
        return translated(getattr(getattr(error, "orig", None), "__cause__", None) or error)
    if isinstance(
        error, asyncpg.PostgresError | asyncpg.InterfaceError | ConnectionError | TimeoutError
    ):
        return translated(error)
    if isinstance(error, OSError) and error.errno in _FULL and error.filename is None:
        return LedgerError(f"cannot write the output: {error.strerror}")
    return None


def _facts(error: Exception) -> dict[str, Any]:
    return {name: value for name, value in vars(error).items() if not name.startswith("_")}


def _say(kind: str, message: str, facts: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        found = {**jsonable(facts), "type": kind, "message": message}
        sys.stderr.write(json.dumps({"error": found}, ensure_ascii=True) + "\n")
    else:
        sys.stderr.write(f"error: {clean(' '.join(message.split()))}\n")
