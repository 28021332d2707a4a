"""Claim: lease runs to a worker. The statement is `ledger/sql/operations/claim.sql`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID

from runfold.ledger import log, names
from runfold.ledger.errors import InvalidValue
from runfold.ledger.operations.project import Project
from runfold.ledger.payload import decode_payload, payload_member
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.run import Lease
from runfold.ledger.validation import check_duration, check_int, check_text

CLAIM: Final = "SELECT * FROM ledger.claim($1, $2, $3, $4, $5, $6, $7, $8)"
RESCAN_SECONDS: Final = 1.0
"""How long claims may start at a mark before one starts at the beginning, for delayed and requeued
runs."""
RESCAN_PART: Final = 0.05
"""The part of the time that claims from the beginning may take: behind an old snapshot each walks
all that was taken since."""


class MarkColumns(NamedTuple):
    """Low-water marks as the parallel arrays of `ledger.claim`; empty to start at the beginning."""

    kinds: list[str]
    priorities: list[int]
    run_ids: list[UUID]


class Marks:
    """For each kind, the first run of the last batch: everything before it was taken.

    Index entries of taken runs stay until vacuum, and as long as anyone holds an old snapshot
    vacuum cannot remove them; a claim from the beginning would walk ever more of them.
    """

    NONE: Final = MarkColumns([], [], [])

    def __init__(self) -> None:
        self._first: dict[str, tuple[int, UUID]] = {}
        self._rescan_at = 0.0

    def current(self) -> MarkColumns:
        """Return the marks; none when it is time to start at the beginning."""
        now = time.monotonic()
        if now >= self._rescan_at:
            self._first.clear()
            self._rescan_at = now + RESCAN_SECONDS
        return MarkColumns(
            list(self._first),
            [priority for priority, _ in self._first.values()],
            [run_id for _, run_id in self._first.values()],
        )

    def rescanned(self, seconds: float) -> None:
        """Note how long a claim from the beginning took; the next one waits accordingly."""
        self._rescan_at = time.monotonic() + max(RESCAN_SECONDS, seconds / RESCAN_PART)

    def remember(self, rows: Sequence[Mapping[str, Any]], *, full: bool) -> None:
        """Move each kind's mark to its first run of this batch; a short batch drops all marks."""
        if not full:
            self.clear()
            return
        seen: set[str] = set()
        for row in rows:
            if row["kind"] not in seen:
                seen.add(row["kind"])
                self._first[row["kind"]] = (row["priority"], row["run_id"])

    def clear(self) -> None:
        """Start at the beginning next time."""
        self._first.clear()


async def claim(
    project: Project,
    marks: Marks,
    worker_id: str,
    *,
    limit: int,
    kinds: Sequence[str] | None,
    ttl: float | timedelta | None,
) -> list[Lease]:
    """Lease the oldest claimable runs; see `Ledger.claim`."""
    check_text("worker_id", worker_id)
    check_int("limit", limit, least=1, most=10_000)
    default = project.settings.lease_ttl_seconds
    lifetime = check_duration("ttl", default if ttl is None else ttl, positive=True)
    only = None if kinds is None else check_kinds(kinds)

    async def send(count: int, start: MarkColumns) -> Sequence[Mapping[str, Any]]:
        return await fetch(
            project.pool, CLAIM, project.project_id, worker_id, only, count, lifetime, *start
        )

    start = marks.current()
    began = time.monotonic()
    rows = list(await send(limit, start))
    if not start.kinds:
        marks.rescanned(time.monotonic() - began)
    elif len(rows) < limit:
        marks.clear()
        rows += await send(limit - len(rows), Marks.NONE)
    marks.remember(rows, full=len(rows) >= limit)
    leases = [_lease(row, worker_id, lifetime) for row in rows]
    _log_leases(project.log(worker_id=worker_id), leases)
    return leases


def check_kinds(kinds: Sequence[str]) -> list[str]:
    """Return the kinds of a claim, each once; raise InvalidValue for what is no list of kinds."""
    if isinstance(kinds, str) or not isinstance(kinds, Iterable):
        raise InvalidValue("kinds", kinds, "must be a list of kinds")
    return sorted({check_text("kind", kind) for kind in kinds})


def _lease(row: Mapping[str, Any], worker_id: str, ttl: timedelta) -> Lease:
    content = decode_payload(row["input"])
    return Lease(
        run_id=row["run_id"],
        token=row["token"],
        attempt=row["attempt"],
        max_attempts=row["max_attempts"],
        kind=row["kind"],
        priority=row["priority"],
        input=payload_member(content, "input"),
        worker_id=worker_id,
        until=row["lease_until"],
        ttl=ttl,
        cancel_requested=row["cancel_requested"],
        parent=_parent(payload_member(content, "parent")),
    )


def _parent(value: object) -> UUID | None:
    with suppress(ValueError):
        return UUID(value) if isinstance(value, str) else None
    return None


def _log_leases(logger: Any, leases: Sequence[Lease]) -> None:
    for lease in leases if log.tells(logger) else ():
        logger.info(
            names.LEASE_ACQUIRED,
            run_id=str(lease.run_id),
            attempt_count=lease.attempt,
            max_attempts=lease.max_attempts,
        )
