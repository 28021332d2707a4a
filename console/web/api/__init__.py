"""The HTTP API: a file for each resource, with its router."""

from __future__ import annotations

from typing import Final, get_args, get_origin

from fastapi import APIRouter, Depends, Request
from fastapi.dependencies.utils import get_flat_params
from fastapi.params import Header, Query
from fastapi.routing import APIRoute

from runfold.console.web.api import (
    agents,
    approvals,
    bulk,
    claims,
    health,
    integrity,
    kinds,
    past,
    problem_pages,
    projections,
    runs,
    schedules,
    stream,
    webhooks,
    work,
)
from runfold.ledger.errors import InvalidValue

PREFIX = "/v1"
_CONDITIONS: Final = {
    name.lower().encode(): name
    for name in ("Idempotency-Key", "If-Match", "If-None-Match", "If-Unmodified-Since")
}
"""Headers under which a write is done once, or not at all."""
_RESOURCES = (
    runs, bulk, past, claims, work, approvals, stream, kinds, schedules, webhooks, projections,
    integrity, health, problem_pages, agents,
)  # fmt: skip


def routers() -> tuple[APIRouter, ...]:
    """Return the routers of all resources, under the prefix of this version."""
    whole = APIRouter(prefix=PREFIX, dependencies=[Depends(_check_parameters)])
    for resource in _RESOURCES:
        whole.include_router(resource.router)
    return (whole,)


async def _check_parameters(request: Request) -> None:
    """Raise InvalidValue for a parameter that the route does not have: a filter that is misspelt.

    Left out, as the first of two of one name would be, it would give more than was asked for. So
    would a write whose condition or key is left out.
    """
    conditions = _CONDITIONS.keys() & {name for name, _ in request.headers.raw}
    if request.method == "GET":
        conditions = set()
    if not request.query_params and not conditions:  # nearly always
        return
    route = request.scope["route"]
    assert isinstance(route, APIRoute)
    fields = get_flat_params(route.dependant)
    known = {
        field.alias: field.field_info.annotation
        for field in fields
        if isinstance(field.field_info, Query)
    }
    for name in request.query_params:
        if name not in known:
            taken = ", ".join(sorted(known)) or "none"
            raise InvalidValue("parameter", name, f"is not one of {request.url.path}: {taken}")
        if len(request.query_params.getlist(name)) > 1 and not _is_list(known[name]):
            raise InvalidValue("parameter", name, "is given twice: give it once")
    headers = {field.alias for field in fields if isinstance(field.field_info, Header)}
    for name in sorted(_CONDITIONS[condition] for condition in conditions):
        if name not in headers:
            where = f"{request.method} {request.url.path}"
            raise InvalidValue("header", name, f"is not looked at by {where}: leave it out")


def _is_list(annotation: object) -> bool:
    """Whether a parameter of this type may be given more than once."""
    return list in {get_origin(each) for each in (annotation, *get_args(annotation))}
