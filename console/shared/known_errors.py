"""Which exceptions are errors that a user can act on, and which are defects."""

from __future__ import annotations

import errno
from typing import Final

import asyncpg

from runfold.ledger.errors import LedgerError
from runfold.ledger.postgres.errors import translated

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


def known(error: Exception) -> Exception | None:
    """Return the ledger's error for an exception; None if it is a defect."""
    if isinstance(error, LedgerError):
        return error
    if type(error).__module__.startswith("sqlalchemy"):  # by name: importing it takes a second
        return _of(getattr(getattr(error, "orig", None), "__cause__", None) or error)
    if isinstance(
        error, asyncpg.PostgresError | asyncpg.InterfaceError | ConnectionError | TimeoutError
    ):
        return _of(error)
    if isinstance(error, OSError) and error.errno in _FULL and error.filename is None:
        return LedgerError(f"cannot write the output: {error.strerror}")
    return None


def _of(error: BaseException) -> LedgerError:
    """Return what a database error stands for, with that error as its cause."""
    meant = translated(error)
    meant.__cause__ = error
    return meant
