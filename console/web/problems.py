"""Errors as RFC 9457 problems: a stable code, the HTTP status, and a page that explains it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException

from runfold.console.cli.kit.known_errors import known
from runfold.console.cli.kit.plain import clean, jsonable
from runfold.ledger.errors import DatabaseUnavailable, LedgerError

MEDIA_TYPE: Final = "application/problem+json"
TYPE: Final = "/v1/problems/"
RETRY_SECONDS: Final = 1
STATUSES: Final = {
    "Unauthenticated": HTTPStatus.UNAUTHORIZED,
    "AccessDenied": HTTPStatus.FORBIDDEN,
    "DecisionRefused": HTTPStatus.FORBIDDEN,
    "RunNotFound": HTTPStatus.NOT_FOUND,
    "UnknownProject": HTTPStatus.NOT_FOUND,
    "UnknownKind": HTTPStatus.NOT_FOUND,
    "UnknownVersion": HTTPStatus.NOT_FOUND,
    "ScheduleNotFound": HTTPStatus.NOT_FOUND,
    "ProjectionNotFound": HTTPStatus.NOT_FOUND,
    "BeforeFirstEvent": HTTPStatus.NOT_FOUND,
    "LeaseLost": HTTPStatus.CONFLICT,
    "LeaseRequired": HTTPStatus.CONFLICT,
    "IllegalTransition": HTTPStatus.CONFLICT,
    "AttemptsExhausted": HTTPStatus.CONFLICT,
    "VersionConflict": HTTPStatus.PRECONDITION_FAILED,
    "PayloadTooLarge": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "InvalidValue": HTTPStatus.UNPROCESSABLE_ENTITY,
    "FutureInstant": HTTPStatus.UNPROCESSABLE_ENTITY,
    "DuplicateKey": HTTPStatus.UNPROCESSABLE_ENTITY,
    "DatabaseUnavailable": HTTPStatus.SERVICE_UNAVAILABLE,
    "LockTimeout": HTTPStatus.SERVICE_UNAVAILABLE,
}
"""The status of each error, by the nearest of its classes that has one; else 500."""


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
    """Have the application answer every error with a problem."""
    app.add_exception_handler(LedgerError, _of_ledger)
    app.add_exception_handler(HTTPException, _of_http)
    app.add_exception_handler(RequestValidationError, _of_request)
    app.add_exception_handler(Exception, _of_defect)


def problem(
    status: HTTPStatus,
    code: str,
    detail: str,
    facts: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """Return a problem as a response; `facts` are more members of it."""
    content = {
        **(facts or {}),
        "type": TYPE + code,
        "title": status.phrase,
        "status": status.value,
        "code": code,
        "detail": clean(detail),
    }
    return JSONResponse(content, status, headers=headers, media_type=MEDIA_TYPE)


async def _of_ledger(_: Request, error: Exception) -> JSONResponse:
    kind = next((k for k in type(error).__mro__ if k.__name__ in STATUSES), LedgerError)
    status = STATUSES.get(kind.__name__, HTTPStatus.INTERNAL_SERVER_ERROR)
    headers: dict[str, str] = {}
    if status is HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = str(RETRY_SECONDS)
    if isinstance(error, DatabaseUnavailable):  # its reason may name the server's address
        return problem(
            status, code_of(kind.__name__), "the database does not answer", None, headers
        )
    return problem(status, code_of(kind.__name__), str(error), _facts(error), headers)


def _facts(error: Exception) -> dict[str, Any]:
    hidden = {"value"}  # the detail has it, cut to a line
    facts = {name: value for name, value in vars(error).items() if name not in hidden}
    return {n: jsonable(v) for n, v in facts.items() if not n.startswith("_")}


async def _of_http(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    code = status.name.lower().replace("_", "-")
    return problem(status, code, error.detail, headers=error.headers)


async def _of_request(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    faults = [
        {"at": ".".join(map(str, fault["loc"])), "problem": fault["msg"]}
        for fault in error.errors()[:10]
    ]
    detail = "; ".join(f"{fault['at']}: {fault['problem']}" for fault in faults)
    return problem(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-value", detail, {"faults": faults})


async def _of_defect(request: Request, error: Exception) -> JSONResponse:
    expected = known(error)
    if expected is not None:
        return await _of_ledger(request, expected)
    return problem(
        HTTPStatus.INTERNAL_SERVER_ERROR, "defect", "the server's log says what happened"
    )
