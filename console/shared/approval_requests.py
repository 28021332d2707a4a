"""The approvals that runs wait for: what a person is asked, and who may decide."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from runfold.ledger import Ledger
from runfold.ledger.months import FIRST_RUN, LAST_RUN
from runfold.ledger.payload import Unreadable, decode_payload
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.validation import check_int

# Of each kind the oldest parked runs, in the order of their index, and all held runs. State and id
# are compared as a row, so that no index but that one gives the order.
WAITING: Final = f"""
SELECT waiting.run_id FROM (
  SELECT DISTINCT known.kind FROM ledger.kind AS known
  WHERE known.project_id = {{project}}) AS kinds
CROSS JOIN LATERAL (
  (SELECT run.run_id FROM ledger.run_state AS run
   WHERE run.project_id = {{project}} AND run.kind = kinds.kind AND run.token IS NULL
     AND (run.available_at <= run.created_at) IS NOT TRUE AND run.available_at IS NULL
     AND (run.state, run.run_id) > ('waiting_approval', '{FIRST_RUN}'::uuid)
     AND (run.state, run.run_id) < ('waiting_approval', '{LAST_RUN}'::uuid)
   ORDER BY run.state, run.run_id LIMIT {{limit}})
  UNION ALL
  SELECT held.run_id FROM (
    SELECT run.run_id, run.state FROM ledger.run_state AS run
    WHERE run.project_id = {{project}} AND run.kind = kinds.kind AND run.token IS NOT NULL OFFSET 0
  ) AS held
  WHERE held.state = 'waiting_approval'
) AS waiting ORDER BY waiting.run_id LIMIT {{limit}}
"""
"""The ids of the runs of a project that wait for a decision, the oldest first."""
_COUNT: Final = """
SELECT count(*) AS number FROM ({waiting}) AS waiting WHERE waiting.run_id <> ALL ($2::uuid[])
"""
_PENDING: Final = """
SELECT run.run_id, run.kind, first.actor AS submitted_by, asked.version, asked.name,
  asked.recorded_at AS asked_at, asked.wait_until, asked.wait_outcome, payload.body::text AS body,
  asked.role, coalesce(asked.other_person, false) AS other_person, asked.shown_sha256,
  coalesce(run.approvals, 1) AS approvals, ARRAY(
    SELECT event.actor FROM ledger.event AS event WHERE event.project_id = run.project_id
      AND event.run_id = run.run_id AND event.version > asked.version
      AND event.type = 'approval.signed'
    ORDER BY event.version) AS approved_by
FROM ({ids}) AS waiting
CROSS JOIN LATERAL (
  SELECT run.* FROM ledger.run_state AS run WHERE run.project_id = $1
    AND run.run_id = waiting.run_id OFFSET 0
) AS run
CROSS JOIN LATERAL (  -- backwards, by a range: see ledger.newest_request
  SELECT event.version, event.name, event.recorded_at, event.wait_until, event.wait_outcome,
    event.role, event.other_person, event.shown_sha256
  FROM ledger.event AS event
  WHERE event.project_id = run.project_id AND event.run_id >= run.run_id
    AND event.run_id <= run.run_id AND event.type = 'approval.requested'
  ORDER BY event.run_id DESC, event.version DESC LIMIT 1
) AS asked
CROSS JOIN LATERAL (  -- with its limit, so that no plan begins with the first events of all runs
  SELECT event.actor FROM ledger.event AS event
  WHERE event.project_id = run.project_id AND event.run_id = run.run_id
    AND event.version = 1 LIMIT 1
) AS first
LEFT JOIN ledger.payload AS payload
  ON payload.project_id = run.project_id AND payload.run_id = run.run_id
  AND payload.version = asked.version
WHERE run.state = 'waiting_approval' AND run.available_at IS NULL
ORDER BY asked.recorded_at, run.run_id
"""
_ROLES: Final = "SELECT role FROM ledger.role_member WHERE project_id = $1 AND member = $2"


@dataclass(frozen=True, slots=True)
class ApprovalRequest:
    """An approval that a run waits for; `version` names it."""

    run_id: UUID
    kind: str
    version: int
    name: str | None
    prompt: str | None
    show: Any
    shown_sha256: str | None
    role: str | None
    other_person: bool
    submitted_by: str
    asked_at: datetime
    wait_until: datetime | None
    wait_outcome: str | None
    approvals: int
    """How many persons must approve."""
    approved_by: Sequence[str]
    """Who has approved so far."""

    def bars(self, actor: str, roles: Iterable[str]) -> str | None:
        """Return why a person may not decide; None if nothing is in the way."""
        if self.other_person and actor == self.submitted_by:
            return f"{actor} submitted the run: another person must decide"
        if self.role is not None and self.role not in set(roles):
            return f"{actor} does not have the role {self.role}"
        if actor in self.approved_by:
            return f"{actor} approved before: another person must"
        return None


async def pending_request(ledger: Ledger, run_id: UUID) -> ApprovalRequest | None:
    """Return the approval that a run waits for, or None."""
    requests = await _fetch(ledger, "SELECT $2::uuid AS run_id", run_id)
    return requests[0] if requests else None


async def pending_requests(ledger: Ledger, limit: int) -> list[ApprovalRequest]:
    """Return the approvals that the oldest runs of the project wait for, the oldest first."""
    return await _fetch(
        ledger, WAITING.format(project="$1", limit=check_int("limit", limit, least=1))
    )


async def requests_of(ledger: Ledger, run_ids: Sequence[UUID]) -> list[ApprovalRequest]:
    """Return the approvals that these runs wait for, the oldest first."""
    return await _fetch(ledger, "SELECT unnest($2::uuid[]) AS run_id", run_ids)


async def count_pending(ledger: Ledger, most: int, without: Sequence[UUID] = ()) -> int:
    """Return how many runs of the project wait for a decision, counted up to `most`."""
    limit = check_int("most", most, least=1) + len(without)
    waiting = WAITING.format(project="$1", limit=limit)
    [row] = await fetch(ledger.pool, _COUNT.format(waiting=waiting), ledger.project_id, without)
    return min(int(row["number"]), most)


async def roles_of(ledger: Ledger, actor: str) -> set[str]:
    """Return the roles that a person has."""
    return {row["role"] for row in await fetch(ledger.pool, _ROLES, ledger.project_id, actor)}


async def _fetch(ledger: Ledger, ids: str, *values: object) -> list[ApprovalRequest]:
    rows = await fetch(ledger.pool, _PENDING.format(ids=ids), ledger.project_id, *values)
    return [_request(row) for row in rows]


def _request(row: Mapping[str, Any]) -> ApprovalRequest:
    content = _content(row["body"])
    facts = {name: row[name] for name in _FACTS}
    return ApprovalRequest(
        **facts,
        prompt=content.get("prompt"),
        show=content.get("show"),
    )


_FACTS: Final = (
    "run_id", "kind", "version", "name", "submitted_by", "asked_at", "wait_until", "wait_outcome",
    "role", "other_person", "shown_sha256", "approvals", "approved_by",
)  # fmt: skip


def _content(body: str | None) -> dict[str, Any]:
    content = decode_payload(body)
    if isinstance(content, Unreadable):
        return {"prompt": f"({content})"}
    return content if isinstance(content, dict) else {}
