"""The HTTP API: a file a resource, each with its router."""

from __future__ import annotations

from fastapi import APIRouter

from runfold.console.web.api import health, runs

PREFIX = "/v1"


def routers() -> tuple[APIRouter, ...]:
    """Return the routers of all resources, under the prefix of this version."""
    whole = APIRouter(prefix=PREFIX)
    for resource in (health, runs):
        whole.include_router(resource.router)
    return (whole,)
