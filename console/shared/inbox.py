"""A person's inbox: the approvals that wait and the person has not put off."""

from __future__ import annotations

from datetime import datetime
from operator import itemgetter
from uuid import UUID

from runfold.console.shared.approval_requests import (
    ApprovalRequest,
    count_pending,
    pending_requests,
    requests_of,
)
from runfold.ledger import Ledger
from runfold.ledger.errors import IllegalTransition
from runfold.ledger.snoozes import snooze, snoozes


async def inbox(ledger: Ledger, actor: str, limit: int) -> list[ApprovalRequest]:
    """Return what waits for a decision and the person has not put off, the oldest first."""
    away = {each.run_id for each in await snoozes(ledger.project, actor)}
    requests = await pending_requests(ledger, limit + len(away))
    return [request for request in requests if request.run_id not in away][:limit]


async def snoozed_requests(ledger: Ledger, actor: str) -> list[tuple[ApprovalRequest, datetime]]:
    """Return what the person has put off, each with its end; what is back first comes first."""
    away = {each.run_id: each.until for each in await snoozes(ledger.project, actor)}
    requests = await requests_of(ledger, list(away))
    return sorted(((each, away[each.run_id]) for each in requests), key=itemgetter(1))


async def change_inbox(
    ledger: Ledger, run_id: UUID, version: int, until: datetime | None, *, actor: str | None = None
) -> bool:
    """Put off a request until a time, or end that (None); return whether the request was put off.

    Raises InvalidValue, or IllegalTransition for a request that the run does not wait with.
    """
    changed = await snooze(ledger.project, run_id, version, until, actor=actor)
    if until is not None and not changed:
        gone = f"request #{version} is decided, or was replaced"
        raise IllegalTransition(run_id, (await ledger.get(run_id)).state, "put off", gone)
    return changed


async def count_inbox(ledger: Ledger, actor: str, most: int) -> int:
    """Return how many runs wait for a decision that the person has not put off, up to `most`."""
    away = [each.run_id for each in await snoozes(ledger.project, actor)]
    return await count_pending(ledger, most, away)
