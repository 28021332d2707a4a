"""Kinds: what is claimed of each, and how many at a time."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import Field

from runfold.console.shared.plain import jsonable
from runfold.console.web.api.runs import Reason
from runfold.console.web.api.shapes import Shown
from runfold.console.web.callers import Admin, Reader

router = APIRouter(prefix="/kinds", tags=["kinds"])


class Order(Reason):
    """An order about a kind."""

    ahead: bool = Field(default=False, description="The kind is new: it has no run yet.")


class Limit(Order):
    """How many runs of a kind all workers together hold."""

    max_running: int | None = Field(description="Null lifts the limit.")


@router.get("", operation_id="kinds")
async def kinds(ledger: Reader) -> Shown:
    """List the kinds that were ever submitted or changed. Needs the right read."""
    return {"kinds": [jsonable(kind) for kind in await ledger.kinds()]}


@router.get("/{kind}/history", operation_id="kind_history")
async def history(ledger: Reader, kind: str) -> Shown:
    """List the changes of a kind, the oldest first. Needs the right read."""
    return {"events": [jsonable(event) for event in await ledger.kind_history(kind)]}


@router.post("/{kind}/pause", operation_id="pause_kind")
async def pause(ledger: Admin, kind: str, body: Order) -> Shown:
    """Stop claims of a kind; held runs go on. Needs the right admin."""
    return dict(jsonable(await ledger.pause_kind(kind, **body.model_dump())))


@router.post("/{kind}/resume", operation_id="resume_kind")
async def resume(ledger: Admin, kind: str, body: Order) -> Shown:
    """Allow claims of a kind again. Needs the right admin."""
    return dict(jsonable(await ledger.resume_kind(kind, **body.model_dump())))


@router.post("/{kind}/limit", operation_id="limit_kind")
async def limit(ledger: Admin, kind: str, body: Limit) -> Shown:
    """Limit how many runs of a kind are held at a time. Needs the right admin."""
    return dict(jsonable(await ledger.limit_kind(kind, **body.model_dump())))
