"""The approvals that runs wait for, and the decision on exactly what is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, tzinfo
from http import HTTPStatus
from typing import Annotated, Any, Final, Literal

from fastapi import Depends, Form
from fastapi.responses import RedirectResponse, Response

from runfold.console.shared.approval_requests import ApprovalRequest, pending_request, roles_of
from runfold.console.shared.inbox import change_inbox, inbox, snoozed_requests
from runfold.console.web.pages.decisions import RUNS, decided
from runfold.console.web.pages.viewing import ReadViewer, Viewer, page, router, viewing, zone_of
from runfold.console.web.read_log import reads_of
from runfold.ledger.errors import IllegalTransition, InvalidValue
from runfold.ledger.events import ApprovalRequested
from runfold.ledger.postgres.clock import ledger_now
from runfold.ledger.snoozes import snoozes
from runfold.ledger.validation import check_run_id

MOST: Final = 200
"""Requests on the page, the oldest first."""
EARLIER: Final = 5
"""Decisions on runs of the same kind that stand beside a request."""
WAITS: Final[Mapping[str, tuple[str, timedelta]]] = {
    "1h": ("for an hour", timedelta(hours=1)),
    "4h": ("for 4 hours", timedelta(hours=4)),
    "1d": ("for a day", timedelta(days=1)),
    "3d": ("for 3 days", timedelta(days=3)),
    "7d": ("for a week", timedelta(days=7)),
}
"""How long a request is snoozed, as the form names it."""
Decider = Annotated[Viewer, Depends(viewing("decide"))]
pages = router()


@page(pages, "/p/{project}/approvals", csv=True)
async def approvals(
    viewer: ReadViewer, show: Literal["waiting", "snoozed", "decided"] = "waiting"
) -> Response:
    """List the requests that wait for the viewer, or that the viewer snoozed, or past decisions."""
    ledger = viewer.ledger
    away = len(await snoozes(ledger.project, ledger.actor))
    if show == "decided":
        past = await decided(ledger)
        data = {"decided": past}
        return viewer.page("decided.html", data, rows=past, most=RUNS, away=away)
    roles = await roles_of(ledger, ledger.actor)
    if show == "snoozed":
        hidden = await snoozed_requests(ledger, ledger.actor)
        await _note(viewer, [each for each, _ in hidden])
        shown = [{**_shown(each, ledger.actor, roles), "until": until} for each, until in hidden]
        return viewer.page("snoozed.html", {"approvals": shown}, rows=_rows(shown), away=away)
    requests = await inbox(ledger, ledger.actor, MOST)
    await _note(viewer, requests)
    shown = [_shown(request, ledger.actor, roles) for request in requests]
    data = {"approvals": shown}
    return viewer.page("approvals.html", data, rows=_rows(shown), most=MOST, away=away)


async def _note(viewer: Viewer, requests: Sequence[ApprovalRequest]) -> None:
    """Put on record the runs whose content the list shows."""
    run_ids = [each.run_id for each in requests]
    await reads_of(viewer.request).note_runs(viewer.request, viewer.ledger, run_ids)


def _rows(shown: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{n: v for n, v in each.items() if n not in {"show", "approved_by"}} for each in shown]


@page(pages, "/p/{project}/approvals/{run_id}/{version}")
async def approval(viewer: ReadViewer, run_id: str, version: int) -> Response:
    """Show one request in full, with the form that decides it and nothing else."""
    ledger = viewer.ledger
    run = await ledger.get(run_id)
    pending = await pending_request(ledger, run.run_id)
    if pending is None or pending.version != version:
        raise IllegalTransition(
            run.run_id, run.state, "decided", f"request #{version} is decided, or was replaced"
        )
    roles = await roles_of(ledger, ledger.actor)
    shown = _shown(pending, ledger.actor, roles)
    earlier = (await decided(ledger, run.kind, before=run.run_id))[:EARLIER]
    away = {each.run_id: each.until for each in await snoozes(ledger.project, ledger.actor)}
    data = {"approval": shown, "earlier": earlier, "snoozed_until": away.get(run.run_id)}
    return viewer.page("approval.html", data, run=run, waits=WAITS)


@pages.post("/p/{project}/approvals/{run_id}/{version}")
async def decide(
    viewer: Decider,
    run_id: str,
    version: int,
    *,
    decision: Annotated[Literal["approve", "reject"], Form()],
    shown_sha256: Annotated[str, Form(pattern="^([0-9a-f]{64})?$")] = "",
    reason: Annotated[str, Form()] = "",
    person: Annotated[str, Form()] = "",
) -> Response:
    """Decide the request that was shown; if it has changed since, the decision is refused."""
    ledger = viewer.ledger
    request = ApprovalRequested(
        run_id=check_run_id(run_id), version=version, shown_sha256=shown_sha256 or None
    )
    plain = reason.replace("\r\n", "\n")  # as forms send the ends of lines
    facts: dict[str, Any] = {"actor": person or ledger.actor, "reason": plain or None}
    answer = ledger.approve if decision == "approve" else ledger.reject
    run = await answer(request, **facts)
    return RedirectResponse(f"{viewer.base}/runs/{run.run_id}", HTTPStatus.SEE_OTHER)


@pages.post("/p/{project}/approvals/{run_id}/{version}/snooze")
async def snooze(
    viewer: Decider,
    run_id: str,
    version: int,
    *,
    change: Annotated[Literal["snooze", "undo"], Form()] = "snooze",
    wait: Annotated[Literal["", "1h", "4h", "1d", "3d", "7d"], Form()] = "",
    until: Annotated[str, Form(max_length=40)] = "",
) -> Response:
    """Keep a request out of the viewer's inbox for a while or until a time; or put it back."""
    end = None
    if change == "snooze" and until:
        end = _end(until, zone_of(viewer.request))
    elif change == "snooze":
        end = await ledger_now(viewer.ledger.pool) + WAITS[wait or "1d"][1]
    await change_inbox(viewer.ledger, check_run_id(run_id), version, end)
    shown = "?show=snoozed" if change == "undo" else ""
    return RedirectResponse(f"{viewer.base}/approvals{shown}", HTTPStatus.SEE_OTHER)


def _end(until: str, zone: tzinfo) -> datetime:
    """Return the time in the viewer's zone at which a request is back."""
    try:
        end = datetime.fromisoformat(until)
    except ValueError:
        raise InvalidValue("until", until, "must be a time such as 2026-01-31T12:00") from None
    return end if end.tzinfo else end.replace(tzinfo=zone)


def _shown(request: ApprovalRequest, actor: str, roles: set[str]) -> dict[str, Any]:
    facts = {name: getattr(request, name) for name in ApprovalRequest.__slots__}
    return {**facts, "bar": request.bars(actor, roles)}
