"""Heartbeat: keep leases. The statement is `ledger/sql/operations/heartbeat.sql`.

`Ledger.heartbeat` beats over the pool, a worker's heart over a connection of its own; both send
what is here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

from runfold.ledger.arguments import check_lease, identify_lease
from runfold.ledger.errors import InvalidValue
from runfold.ledger.operations.columns import check_distinct, columns
from runfold.ledger.operations.project import Project
from runfold.ledger.operations.refusal import Refused, look, refusal
from runfold.ledger.postgres.connections import Connection, Pool, fetch
from runfold.ledger.run import Lease
from runfold.ledger.validation import check_lease_time, check_text

HEARTBEAT: Final = "SELECT * FROM ledger.heartbeat($1, $2, $3, $4, $5)"


class HeartbeatRow(NamedTuple):
    """The columns of `ledger.heartbeat` after the project."""

    run_id: UUID
    token: int
    ttl: timedelta
    worker: str


class Beat(NamedTuple):
    """A heartbeat that was accepted."""

    run_id: UUID
    lease_until: datetime
    late_ms: int | None
    """Milliseconds between the lease's end and the beat, if it came too late."""
    cancel_requested: bool


async def beat(
    source: Pool | Connection, project_id: str, rows: Sequence[HeartbeatRow]
) -> dict[UUID, Beat]:
    """Send one beat for all the leases; those that are missing in the answer are lost."""
    accepted = await fetch(source, HEARTBEAT, project_id, *columns(rows))
    return {row["run_id"]: Beat(**row) for row in accepted}


async def refuse(
    source: Pool | Connection, project_id: str, worker_id: str, rows: Sequence[HeartbeatRow]
) -> dict[UUID, Refused]:
    """Record the beats of a worker for leases that it has lost; return what the runs are now."""
    late = [(row.run_id, row.token, row.worker) for row in rows]
    return await look(source, project_id, worker_id, "heartbeat", late)


async def heartbeat(project: Project, leases: Sequence[Lease]) -> list[Lease]:
    """Beat for the leases and return them anew; see `Ledger.heartbeat`."""
    if isinstance(leases, Lease) or not isinstance(leases, Sequence):
        raise InvalidValue("leases", leases, "must be a list of leases: heartbeat([lease])")
    if not leases:
        return []
    rows = [_row(check_lease(lease)) for lease in leases]
    check_distinct("run", [row.run_id for row in rows])
    accepted = await beat(project.pool, project.project_id, rows)
    pairs = list(zip(leases, rows, strict=True))
    lost = [pair for pair in pairs if pair[1].run_id not in accepted]
    for worker_id in {lease.worker_id for lease, _ in lost}:
        late = [row for lease, row in lost if lease.worker_id == worker_id]
        refusals = await refuse(project.pool, project.project_id, worker_id, late)
        for row in late:
            refusal(project.project_id, row.run_id, refusals.get(row.run_id), "heartbeat")
    return [_renewed(lease, accepted.get(row.run_id)) for lease, row in pairs]


def _row(lease: Lease) -> HeartbeatRow:
    ttl, worker = check_lease_time("ttl", lease.ttl), check_text("worker_id", lease.worker_id)
    return HeartbeatRow(*identify_lease(lease), ttl, worker)


def _renewed(lease: Lease, accepted: Beat | None) -> Lease:
    if accepted is None:
        return replace(lease, lost=True, late_ms=None)
    return replace(
        lease,
        until=accepted.lease_until,
        late_ms=accepted.late_ms,
        cancel_requested=accepted.cancel_requested,
        lost=False,
    )
