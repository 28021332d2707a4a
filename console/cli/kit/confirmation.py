"""Ask a person at the terminal for a yes."""

from __future__ import annotations

import sys

from runfold.console.cli.kit.output import talk


def can_ask() -> bool:
    """Whether a person can be asked: standard input and standard error are a terminal."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


def confirmed(question: str) -> bool:
    """Ask a question on standard error; only `y` and `yes` confirm."""
    talk(f"{question} [y/N]", end=" ")
    return sys.stdin.readline().strip().lower() in {"y", "yes"}
