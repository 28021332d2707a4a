"""What the database's errors mean: each as the ledger error it stands for, by its SQLSTATE."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias
from uuid import UUID

import asyncpg

from runfold.ledger.errors import (
    AccessDenied,
    CheckpointUnknown,
    ConfigurationError,
    DatabaseRefused,
    DatabaseUnavailable,
    DuplicateKey,
    FeedArchived,
    FeedMoved,
    FeedOnStandby,
    InvalidValue,
    LedgerError,
    MissingPartition,
    NotMigrated,
    UnknownKind,
    UnknownProject,
)
from runfold.ledger.months import month_of
from runfold.ledger.validation import check_encodable

_LOST: Final = frozenset({"40001", "40P01", "55P03"})
_OVERTAKEN: Final = ("tuple concurrently updated", "tuple concurrently deleted")
"""Another transaction changed the same object of the catalogue: a grant, a setting, a function."""
_READ_ONLY: Final = "25006"
_AWAY: Final = frozenset({_READ_ONLY, "55000"})
"""The server takes no writes now: it is a standby, or an object is not ready."""
_AWAY_CLASSES: Final = frozenset({"08", "53", "57", "58"})
_GONE: Final = re.compile(r"cache lookup failed for .*\d|.*\bOID \d+")
"""What was dropped after a statement had named it: the server knows its number alone."""
_POOLER: Final = (
    "a pooler in transaction mode lies before the database, and knows no prepared statements: "
    "set RUNFOLD_PREPARED_STATEMENTS=false, and RUNFOLD_LISTEN=false for workers"
)
_ROW_SECURITY: Final = (
    "the login has row_security turned off: ALTER ROLE login SET row_security = on"
)
_STANDBY: Final = "; this server is a standby: give the URL of the primary"
READS_ONLY: Final = (
    "this server is a standby, or the setting default_transaction_read_only is on: give the URL of "
    "the primary, or have that setting off"
)
"""Why a session may only read, and the remedy."""
_TOO_SLOW: Final = (
    "; a limit of the login ended it: raise it, as by ALTER ROLE login SET statement_timeout"
)
_CLOSED: Final = re.compile(r"(underlying )?connection (is closed|has been released back)")
"""What the driver says of a connection whose end it learned of between two statements."""
_ENDED: Final = (
    "the server ended the session between two statements, and its log says why: a restart, a "
    "command, or a limit of the login (idle_in_transaction_session_timeout, transaction_timeout, "
    "idle_session_timeout)"
)
Translation: TypeAlias = Callable[[BaseException, Sequence[Any]], LedgerError]


def translated(error: BaseException, args: Sequence[Any] = ()) -> LedgerError:
    """Return the ledger error that a database error stands for; `args` are the statement's."""
    state = getattr(error, "sqlstate", None) or ""
    if state == "23514" and getattr(error, "constraint_name", None) is None:
        return _missing_partition(error)
    if state in _BY_STATE:
        return _BY_STATE[state](error, args)
    if state in {"XX000", "42704"} and _GONE.match(sentence(error)):
        return _changed_meanwhile(error)
    # The latter: an upgrade gave a table a column while the transaction was open.
    if is_lost(error) or isinstance(error, asyncpg.InvalidCachedStatementError):
        return DatabaseUnavailable(
            None, f"{error}; nothing was written: run it, or your transaction, again"
        )
    if not state or state[:2] in _AWAY_CLASSES or state in _AWAY:
        return DatabaseUnavailable(None, _reason(error) + _remedy(error, state))
    return DatabaseRefused(state, str(error))


def _reason(error: BaseException) -> str:
    if isinstance(error, asyncpg.InterfaceError) and _CLOSED.search(str(error)):
        return _ENDED
    silent = "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__
    return str(error) or silent


def _remedy(error: BaseException, state: str) -> str:
    if "during recovery" in str(error):
        return _STANDBY
    if state == _READ_ONLY:
        return f"; {READS_ONLY}"
    return _TOO_SLOW if state == "57014" and "statement timeout" in str(error) else ""


def is_lost(error: BaseException | None) -> bool:
    """Whether a statement lost against another transaction: it wrote nothing, and may go again.

    Also where it waited longer for a lock than its role may.
    """
    state = getattr(error, "sqlstate", None)
    return state in _LOST or (state == "XX000" and str(error).startswith(_OVERTAKEN))


def is_read_only(error: LedgerError) -> bool:
    """Whether a ledger error says that the session may only read, as on a standby."""
    return getattr(error.__cause__, "sqlstate", None) == _READ_ONLY


def sentence(error: BaseException) -> str:
    """Return the server's sentence alone: the text of an error ends with its detail and hint."""
    return getattr(error, "message", None) or str(error)


def _detail(error: BaseException) -> str:
    return getattr(error, "detail", None) or ""


def _denied(error: BaseException) -> AccessDenied:
    if "would be affected by row-level security" in sentence(error):  # of a pooler, which pins none
        return AccessDenied(sentence(error), _ROW_SECURITY)
    return AccessDenied(sentence(error))


def _duplicate_key(error: BaseException, _: Sequence[Any]) -> LedgerError:
    facts = json.loads(_detail(error) or "{}")
    return DuplicateKey(facts["key"], UUID(facts["run_id"]), facts["version"])


def _not_migrated(error: BaseException, _: Sequence[Any]) -> LedgerError:
    if getattr(error, "context", None):  # within a function that is there, as it was at its start
        return _changed_meanwhile(error)
    return NotMigrated(None, "this code's schema")


def _changed_meanwhile(error: BaseException) -> LedgerError:
    return DatabaseUnavailable(
        None,
        f"{sentence(error)}, since an upgrade has changed it meanwhile; nothing was written: "
        "run it, or your transaction, again; if that does not help, run `runfold db upgrade`",
    )


def of_an_unreleased_program(fault: str) -> ConfigurationError:
    """Return the error for a database that a program from before the first release has made.

    Until then the first revision changes in place, and no upgrade leads from one form of it to the
    next.
    """
    from runfold.ledger.postgres.embedded.postgres import default_home

    return ConfigurationError(
        f"{fault}: a program from before the first release made them, and no upgrade leads from "
        "there; give the ledger a new database (the built-in one is in the folder "
        f"{default_home()}, which RUNFOLD_HOME names)"
    )


def _other_signatures(error: BaseException, _: Sequence[Any]) -> LedgerError:
    return of_an_unreleased_program(f"functions or views have other signatures ({sentence(error)})")


def _behind_a_pooler(_: BaseException, __: Sequence[Any]) -> LedgerError:
    return ConfigurationError(_POOLER)


def _unencodable(error: BaseException, args: Sequence[Any]) -> LedgerError:
    """Return the error of the first text that PostgreSQL cannot store."""
    for arg in args:
        for value in arg if isinstance(arg, list) else [arg]:
            try:
                if isinstance(value, str):
                    check_encodable("value", value)
            except InvalidValue as invalid:
                return invalid
    return DatabaseRefused(getattr(error, "sqlstate", ""), str(error))


def _missing_partition(error: BaseException) -> MissingPartition:
    match = re.search(r"[0-9a-f]{8}-[0-9a-f-]{27}", _detail(error))
    if match is None:
        return MissingPartition()
    return MissingPartition(UUID(match[0]), month_of(UUID(match[0])))


_BY_STATE: Final[Mapping[str, Translation]] = {
    "RF401": lambda error, _: AccessDenied(sentence(error), AccessDenied.TOKENS),
    "RF403": lambda error, _: AccessDenied.lacking(sentence(error)),
    "RF406": lambda error, _: ConfigurationError(str(error)),
    "RF404": lambda _, args: UnknownProject(str(args[0]) if args else ""),
    "RF407": lambda error, _: UnknownKind(_detail(error)),
    "RF409": _duplicate_key,
    "RF410": lambda _, __: FeedMoved(),
    "RF411": lambda _, __: FeedOnStandby(),
    "RF412": lambda error, _: FeedArchived(_detail(error)),
    "RF413": lambda error, _: CheckpointUnknown(_detail(error)),
    "22000": _unencodable,
    "22021": _unencodable,
    "22023": lambda error, args: InvalidValue.of_the_database(list(args), str(error)),
    "3F000": _not_migrated,
    "42P01": _not_migrated,
    "42883": _not_migrated,
    "42725": _other_signatures,
    "42P13": _other_signatures,
    "42P16": _other_signatures,
    "26000": _behind_a_pooler,
    "42P05": _behind_a_pooler,
    "42501": lambda error, _: _denied(error),
}
"""22000, of the driver, and 22021: a text with a lone surrogate, or with NUL. 26000 and 42P05: the
statement met a server connection where it was not prepared. 22023: a limit that the SQL functions
hold as Python does. 42725, 42P13, 42P16: a function has another one beside it, or a function or
view of the same name cannot be replaced."""
