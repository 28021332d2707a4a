"""Whether the server lives, and whether it can do its work; for probes, so without a token."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """The server answers."""

    status: Literal["ok"] = "ok"


@router.get("/health", operation_id="health")
async def health() -> Health:
    """Answer while the process lives; the database is not asked."""
    return Health()
