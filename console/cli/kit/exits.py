"""The program's exit codes, their meanings, and the code of each error."""

from __future__ import annotations

from typing import Final

from runfold.workers.process import bounds

OK: Final = 0
ERROR: Final = 1
USAGE: Final = 2
NOT_FOUND: Final = 3
UNFINISHED: Final = bounds.UNFINISHED
CONFLICT: Final = 6
INTEGRITY: Final = 7
UNHEALTHY: Final = 9
INTERRUPTED: Final = 130
BROKEN_PIPE: Final = 141

MEANINGS: Final = {
    OK: "done",
    ERROR: "error: the database, its schema, the settings, or a defect",
    USAGE: "usage: an argument or value that is not accepted",
    NOT_FOUND: "not found: the run, version, project, kind, projection, schedule or webhook",
    UNFINISHED: "unfinished: a worker ended by force or by a handler; a reaper takes up its runs",
    CONFLICT: "conflict: the run has ended, moved on or been decided; the key has other content",
    INTEGRITY: "integrity: verify or drift found a fault, or a projection has stopped",
    UNHEALTHY: "unhealthy: doctor found a fault",
    INTERRUPTED: "interrupted by Ctrl-C",
    BROKEN_PIPE: "the reader of the output has gone",
}

EPILOG: Final = "Exit codes:\n" + "\n".join(
    f"  {code:>3}  {meaning}" for code, meaning in MEANINGS.items()
)

_CODES: Final = {
    "InvalidValue": USAGE,
    "PayloadTooLarge": USAGE,
    "FutureInstant": USAGE,
    "WorkerEnded": UNFINISHED,
    "RunNotFound": NOT_FOUND,
    "UnknownProject": NOT_FOUND,
    "UnknownKind": NOT_FOUND,
    "UnknownVersion": NOT_FOUND,
    "ProjectionNotFound": NOT_FOUND,
    "ProjectionUnseen": NOT_FOUND,
    "ScheduleNotFound": NOT_FOUND,
    "WebhookNotFound": NOT_FOUND,
    "BeforeFirstEvent": NOT_FOUND,
    "IllegalTransition": CONFLICT,
    "VersionConflict": CONFLICT,
    "LeaseLost": CONFLICT,
    "LeaseRequired": CONFLICT,
    "DuplicateKey": CONFLICT,
    "AttemptsExhausted": CONFLICT,
    "NotRerunnable": CONFLICT,
    "DecisionRefused": CONFLICT,
    "RoleNotHeld": CONFLICT,
    "ArchiveRefused": CONFLICT,
    "FeedArchived": CONFLICT,
    "OtherVersion": CONFLICT,
    "Redeclared": CONFLICT,
    "DeclaredTwice": CONFLICT,
    "ProjectionPaused": CONFLICT,
    "NotStopped": CONFLICT,
    "ArchiveUnusable": INTEGRITY,
    "ArchiveUnwritable": ERROR,
    "ProjectionFailed": INTEGRITY,
    "TableChanged": INTEGRITY,
}


def exit_code(error: BaseException) -> int:
    """Return the exit code of an error, by the nearest of its classes that has one."""
    return next(
        (_CODES[kind.__name__] for kind in type(error).__mro__ if kind.__name__ in _CODES),
        ERROR,
    )
