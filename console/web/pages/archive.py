"""The archive: the months in the database and in files, and their holds with the reasons."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from fastapi import Depends, Form
from fastapi.responses import RedirectResponse, Response

from runfold.console.web.pages.viewing import Viewer, page, router, viewing
from runfold.ledger.archive import holds, record
from runfold.ledger.archive.record import Archive
from runfold.ledger.archive.status import MonthStatus
from runfold.ledger.errors import InvalidValue
from runfold.ledger.months import bounds, is_month, month_of, start_of
from runfold.ledger.postgres.clock import ledger_now
from runfold.ledger.validation import check_run_id

MOST: Final = 200
"""Records of the history on the page, the newest first."""
# A month has the events of all projects, so only those who may read them all see the archive.
Archivist = Annotated[Viewer, Depends(viewing("read", "audit", everywhere=True))]
Holder = Annotated[Viewer, Depends(viewing("admin", everywhere=True))]
pages = router()


@page(pages, "/p/{project}/archive", csv=True)
async def archive(viewer: Archivist) -> Response:
    """List the months, their holds, and what was done with them."""
    pool = viewer.ledger.pool
    present = await ledger_now(pool)
    months = [_month(each, present) for each in await viewer.ledger.archive.months()]
    held = [dict(each) for each in await holds.holds(pool)]
    history = [dict(each) for each in (await record.history(pool))[-MOST:]][::-1]
    data = {"months": months, "holds": held, "history": history}
    return viewer.page("archive.html", data, rows=months, most=MOST)


@pages.post("/p/{project}/archive")
async def hold(
    viewer: Holder,
    target: Annotated[str, Form()],
    change: Annotated[Literal["hold", "release"], Form()],
    reason: Annotated[str, Form()] = "",
) -> Response:
    """Place or release a hold on a month, or on the month of a run of the project."""
    if not reason.strip():
        raise InvalidValue("reason", reason, "is needed: it is kept in the archive's history")
    archives = viewer.ledger.archive
    order = archives.hold if change == "hold" else archives.release
    await order(_target(viewer, target.strip()), reason=reason)
    return RedirectResponse(f"{viewer.base}/archive", HTTPStatus.SEE_OTHER)


def _target(viewer: Viewer, text: str) -> str | tuple[str, UUID]:
    if is_month(text):
        return text
    try:
        return viewer.ledger.project_id, check_run_id(text)
    except InvalidValue:
        raise InvalidValue("target", text, "must be a month such as 2026-01, or a run id") from None


def _month(status: MonthStatus, now: datetime) -> Mapping[str, Any]:
    file = status.archive
    return {
        "month": status.month,
        "state": status.state,
        "bytes": status.bytes,
        "runs": None if file is None else file.runs,
        "events": None if file is None else file.events,
        "file": None if file is None else str(file.path),
        "file_bytes": None if file is None else file.size_bytes,
        "file_state": None if file is None else _file_state(file),
        "sha256": None if file is None else file.sha256.hex(),
        "holds": status.holds,
        "next": _next(status, now),
    }


def _file_state(file: Archive) -> str:
    """Return whether the file is there with its size, or what is wrong; its digest is not read."""
    try:
        size = file.path.stat().st_size
    except OSError as error:
        return f"not readable here: {error.strerror}"
    return "there" if size == file.size_bytes else f"has another size: {size:,} bytes"


def _next(status: MonthStatus, now: datetime) -> str:
    """Return what may be done with a month, or what is known to prevent it."""
    beyond = start_of(month_of(bounds(status.month)[1]))
    if status.state == "detached":
        return f"runfold archive attach {status.month}"
    if beyond > now:
        return "not over"
    if status.holds:
        return "held"
    verb = "detach" if status.archive is not None else "export"
    return f"runfold archive {verb} {status.month} --dry-run"
