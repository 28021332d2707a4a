"""Errors as RFC 9457 problems: a stable code, the HTTP status, and a page that explains it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException

from runfold.console.shared.known_errors import known
from runfold.console.shared.plain import clean, safe_json
from runfold.ledger import names
from runfold.ledger.errors import DatabaseUnavailable, LedgerError
from runfold.ledger.log import logger

MEDIA_TYPE: Final = "application/problem+json"
TYPE: Final = "/v1/problems/"
RETRY_SECONDS: Final = 1
_UNKNOWN_TOKEN: Final = "RF401"  # noqa: S105  the SQLSTATE
UNEXPECTED: Final = "the server's log says what happened"
"""The detail that a caller reads of an error that is for the operator."""
STATUSES: Final = {
    "Unauthenticated": HTTPStatus.UNAUTHORIZED,
    "AccessDenied": HTTPStatus.FORBIDDEN,
    "DecisionRefused": HTTPStatus.FORBIDDEN,
    "RunNotFound": HTTPStatus.NOT_FOUND,
    "UnknownProject": HTTPStatus.NOT_FOUND,
    "UnknownKind": HTTPStatus.NOT_FOUND,
    "UnknownVersion": HTTPStatus.NOT_FOUND,
    "ScheduleNotFound": HTTPStatus.NOT_FOUND,
    "WebhookNotFound": HTTPStatus.NOT_FOUND,
    "BeforeFirstEvent": HTTPStatus.NOT_FOUND,
    "LeaseLost": HTTPStatus.CONFLICT,
    "LeaseRequired": HTTPStatus.CONFLICT,
    "IllegalTransition": HTTPStatus.CONFLICT,
    "AttemptsExhausted": HTTPStatus.CONFLICT,
    "NotRerunnable": HTTPStatus.CONFLICT,
    "ArchiveRefused": HTTPStatus.CONFLICT,
    "MissingPartition": HTTPStatus.CONFLICT,
    "CheckpointUnknown": HTTPStatus.GONE,
    "FeedArchived": HTTPStatus.GONE,
    "VersionConflict": HTTPStatus.PRECONDITION_FAILED,
    "PayloadTooLarge": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "InvalidQuery": HTTPStatus.UNPROCESSABLE_ENTITY,
    "InvalidValue": HTTPStatus.UNPROCESSABLE_ENTITY,
    "FutureInstant": HTTPStatus.UNPROCESSABLE_ENTITY,
    "DuplicateKey": HTTPStatus.UNPROCESSABLE_ENTITY,
    "TooManyRequests": HTTPStatus.TOO_MANY_REQUESTS,
    "DatabaseUnavailable": HTTPStatus.SERVICE_UNAVAILABLE,
    "LockTimeout": HTTPStatus.SERVICE_UNAVAILABLE,
    "LedgerError": HTTPStatus.INTERNAL_SERVER_ERROR,
}
"""The status of each error, by the nearest of its classes that has one."""
MEANINGS: Final[dict[str, tuple[int, str]]] = {
    "bad-request": (400, "the body cannot be read: send JSON, or a form, in UTF-8"),
    "unauthenticated": (401, "the request has no API token, or one that is unknown or revoked"),
    "access-denied": (403, "the credential lacks a right, or may not speak for this actor"),
    "decision-refused": (403, "the approval needs another person's decision; the try is noted"),
    "foreign-host": (403, "the server is open to its own machine only, by its own names"),
    "foreign-origin": (403, "a page of another origin tried to change something"),
    "not-found": (404, "there is no such page"),
    "run-not-found": (404, "no run with this id is in the project"),
    "unknown-project": (404, "the project does not exist, or the credential has no right in it"),
    "unknown-kind": (404, "no run of this kind was ever submitted"),
    "unknown-version": (404, "the run has no such version, or did not exist at that time"),
    "schedule-not-found": (404, "no schedule has this name"),
    "webhook-not-found": (404, "the project has no such webhook or delivery"),
    "before-first-event": (404, "nothing was recorded in the project at that time"),
    "method-not-allowed": (405, "the page does not take this method"),
    "body-too-slow": (408, "the body did not arrive in time"),
    "lease-lost": (409, "the token is not the current lease: stop working on the run"),
    "lease-required": (409, "the run is leased, or would have to be: the write needs the lease"),
    "illegal-transition": (409, "the run's state does not lead there; nothing was appended"),
    "attempts-exhausted": (409, "no attempt is left: end the run as failed"),
    "not-rerunnable": (409, "the run has not ended, or its input is erased"),
    "archive-refused": (409, "the month is held, or something else is in the way"),
    "missing-partition": (409, "no partition takes the run's events: its month is archived"),
    "checkpoint-unknown": (410, "the id belongs to a history that this database does not have"),
    "feed-archived": (410, "events that were not read yet are archived"),
    "version-conflict": (412, "the run has moved on since the version of If-Match"),
    "payload-too-large": (413, "a payload exceeds the limit of the ledger"),
    "body-too-large": (413, "the body exceeds the limit of the server"),
    "unsupported-media-type": (415, "the body is compressed, or is not JSON"),
    "body-too-deep": (422, "the body is nested too deeply"),
    "invalid-value": (422, "a value cannot be accepted; nothing was written"),
    "invalid-query": (422, "a word of the query is not understood, or no index answers it"),
    "future-instant": (422, "the time has not come yet, by the database's clock"),
    "duplicate-key": (422, "the idempotency key was used with other content"),
    "too-many-requests": (429, "the caller asks more often than it may: wait, as Retry-After says"),
    "defect": (500, "the server met an error that it does not expect; its log has it"),
    "ledger-error": (500, "the database or its schema is not as the server needs it"),
    "database-unavailable": (503, "the database does not answer now: try again"),
    "lock-timeout": (503, "rows stayed locked by others: try again"),
}
"""What each code means, and the status that it comes with."""


NOT_KNOWN: Final = "the API token is unknown, revoked or past its end"


class Unauthenticated(LedgerError):
    """The request has no API token, or one that is unknown, revoked or past its end."""

    def __init__(self, why: str) -> None:
        super().__init__(f"{why}: send `Authorization: Bearer SECRET`, the secret of an API token")


def knows_no_token(error: BaseException) -> bool:
    """Whether the database refused the token itself, and not what it asked for."""
    return getattr(error.__cause__, "sqlstate", None) == _UNKNOWN_TOKEN


class Problem(BaseModel):
    """What went wrong; the facts of an error are members of it, too."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    code: str
    detail: str


RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    "default": {
        "description": "A problem.",
        "content": {MEDIA_TYPE: {"schema": Problem.model_json_schema()}},
    }
}


def code_of(name: str) -> str:
    """Return the code of an error's class: `LeaseLost` is `lease-lost`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()


def answer(app: FastAPI) -> None:
    """Make the application answer every error with a problem, but those that are `of_http`'s."""
    app.add_exception_handler(LedgerError, _of_ledger)
    app.add_exception_handler(RequestValidationError, _of_request)
    app.add_exception_handler(Exception, _of_defect)


def problem(
    status: HTTPStatus,
    code: str,
    detail: str,
    facts: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return a problem as a response; `facts` are more members of it."""
    content = {
        **(facts or {}),
        "type": TYPE + code,
        "title": status.phrase,
        "status": status.value,
        "code": code,
        "detail": clean(detail),
    }
    # A fact may quote what cannot be encoded, such as a lone surrogate.
    return Response(safe_json(content), status, headers=headers, media_type=MEDIA_TYPE)


async def _of_ledger(_: Request, error: Exception) -> Response:
    return of_error(error)


def of_error(error: Exception) -> Response:
    """Return the problem of an error of the ledger."""
    error = as_known(error)
    status, kind, detail = answer_to(error)
    headers: dict[str, str] = {}
    if status is HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    headers |= retry_headers(status, error)
    facts = _facts(error) if detail == str(error) else None
    return problem(status, code_of(kind.__name__), detail, facts, headers)


def retry_headers(status: HTTPStatus, error: Exception) -> dict[str, str]:
    """Return the header that says when to try again, for a status that is temporary."""
    if status not in {HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS}:
        return {}
    return {"Retry-After": str(getattr(error, "retry_after", RETRY_SECONDS))}


def as_known(error: Exception) -> Exception:
    """Return the error, or Unauthenticated where the database refused the token."""
    if knows_no_token(error):
        return Unauthenticated(NOT_KNOWN)
    return error


def answer_to(error: Exception) -> tuple[HTTPStatus, type, str]:
    """Return the status of an error, the class that names it, and the text that a caller may read.

    A text that only the operator may read is logged.
    """
    kind = next((k for k in type(error).__mro__ if k.__name__ in STATUSES), LedgerError)
    status = STATUSES.get(kind.__name__, HTTPStatus.INTERNAL_SERVER_ERROR)
    if isinstance(error, DatabaseUnavailable):  # its reason may name the server's address
        return status, kind, "the database does not answer"
    if status is HTTPStatus.INTERNAL_SERVER_ERROR:
        logger().error(names.REQUEST_FAILED, reason=str(error))
        return status, LedgerError, UNEXPECTED
    return status, kind, str(error)


def reason_of(error: Exception) -> str:
    """Return what a caller may read of an error that ended work in the background; log a defect."""
    expected = known(error)
    if expected is None:
        logger().error(names.REQUEST_FAILED, exc_info=error)
        return UNEXPECTED
    return answer_to(as_known(expected))[2]


def _facts(error: Exception) -> dict[str, Any]:
    hidden = {"value"}  # the detail has it, cut to a line
    return {n: v for n, v in vars(error).items() if n not in hidden and not n.startswith("_")}


async def of_http(_: Request, error: Exception) -> Response:
    """Return the problem of an error that names its status."""
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    code = status.name.lower().replace("_", "-")
    return problem(status, code, error.detail, headers=error.headers)


async def _of_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    sent = request.headers.get("content-type", "").lower()
    if isinstance(error.body, bytes) and "json" not in sent:  # it was not even read as JSON
        detail = f"the body is {sent[:100] or 'of no type'}: send it as application/json"
        return problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", detail)
    faults = [
        {"at": ".".join(map(str, fault["loc"])), "problem": fault["msg"]}
        for fault in error.errors()[:10]
    ]
    detail = "; ".join(f"{fault['at']}: {fault['problem']}" for fault in faults)
    return problem(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-value", detail, {"faults": faults})


async def _of_defect(_: Request, error: Exception) -> Response:
    expected = known(error)
    if expected is not None:
        return of_error(expected)
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "defect", UNEXPECTED)
