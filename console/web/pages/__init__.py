"""The pages: server-rendered, mounted beside the API."""

from __future__ import annotations

from fastapi import APIRouter


def routers() -> tuple[APIRouter, ...]:
    """Return the routers of all pages."""
    return ()
