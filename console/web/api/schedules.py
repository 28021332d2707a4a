"""Schedules: runs that are submitted when a cron expression is due."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, status
from pydantic import Field

from runfold.console.shared.plain import jsonable
from runfold.console.web.api.shapes import Body, Shown
from runfold.console.web.callers import Reader, Scheduler
from runfold.ledger.errors import ScheduleNotFound

router = APIRouter(prefix="/schedules", tags=["schedules"])


class Schedule(Body):
    """What is submitted, and when."""

    kind: str
    input: Any = None
    cron: str
    timezone: str = "UTC"
    ahead: bool = Field(default=False, description="The kind is new: it has no run yet.")


class Why(Body):
    """Who acts, and why."""

    reason: str


@router.get("", operation_id="schedules")
async def schedules(ledger: Reader) -> Shown:
    """List the schedules, by name. Needs the right read."""
    return {"schedules": [jsonable(schedule) for schedule in await ledger.schedules()]}


@router.put("/{name}", operation_id="put_schedule")
async def put(ledger: Scheduler, name: str, body: Schedule) -> Shown:
    """Make a schedule, or replace the one of this name. Needs the right schedule."""
    return dict(jsonable(await ledger.schedule(name, **body.model_dump())))


@router.post("/{name}/pause", operation_id="pause_schedule")
async def pause(ledger: Scheduler, name: str, body: Why) -> Shown:
    """Have a schedule submit nothing until it is resumed. Needs the right schedule."""
    return dict(jsonable(await ledger.pause_schedule(name, **body.model_dump())))


@router.post("/{name}/resume", operation_id="resume_schedule")
async def resume(ledger: Scheduler, name: str, body: Why) -> Shown:
    """Resume a schedule from its next due time. Needs the right schedule."""
    return dict(jsonable(await ledger.resume_schedule(name, **body.model_dump())))


@router.post("/{name}/run", operation_id="run_schedule", status_code=status.HTTP_201_CREATED)
async def run(ledger: Scheduler, name: str, body: Why) -> Shown:
    """Submit a schedule's run now; its due times stay. Needs schedule and submit."""
    return dict(jsonable(await ledger.run_schedule(name, **body.model_dump())))


@router.delete("/{name}", operation_id="drop_schedule", status_code=status.HTTP_204_NO_CONTENT)
async def drop(ledger: Scheduler, name: str) -> None:
    """Remove a schedule. Needs the right schedule."""
    if not await ledger.unschedule(name):
        raise ScheduleNotFound(name, [])
