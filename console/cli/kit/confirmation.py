"""Confirmation by a person at the terminal, or by a count given on the command line."""

from __future__ import annotations

import sys

from runfold.console.cli.kit.output import talk
from runfold.console.shared.values import Misuse


def agreed(action: str, found: str, *, matching: int | None, count: int | None) -> bool:
    """Whether to act on the runs that were found: the count was given, or a person says yes.

    `found` says in words how many they are; `matching` is their number, None where counting ended
    early.
    Raises Misuse for another count, and where nobody can be asked.
    """
    if count is not None:
        if count != matching:
            raise Misuse("--count", f"found {found}, not {count:,}: nothing was done")
        return True
    if not can_ask():
        remedy = f"to {action} them give --count {matching}"
        if matching is None:
            remedy = "narrow the query, or confirm at a terminal"
        raise Misuse("--count", f"found {found}: {remedy}")
    if confirmed(f"{action} {found}?"):
        return True
    talk("nothing was done")
    return False


def can_ask() -> bool:
    """Whether a person can be asked: standard input and standard error are a terminal."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def confirmed(question: str) -> bool:
    """Ask a question on standard error; only `y` and `yes` confirm."""
    talk(f"{question} [y/N]", end=" ")
    return sys.stdin.readline().strip().lower() in {"y", "yes"}
