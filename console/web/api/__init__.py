"""The HTTP API: a file for each resource, with its router."""

from __future__ import annotations

from fastapi import APIRouter

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

PREFIX = "/v1"
_RESOURCES = (
    runs, bulk, past, claims, work, approvals, stream, kinds, schedules, webhooks, projections,
    integrity, health, problem_pages, agents,
)  # fmt: skip


def routers() -> tuple[APIRouter, ...]:
    """Return the routers of all resources, under the prefix of this version."""
    whole = APIRouter(prefix=PREFIX)
    for resource in _RESOURCES:
        whole.include_router(resource.router)
    return (whole,)
