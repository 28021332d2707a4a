"""Claim: lease runs to a worker. The statement is `ledger/sql/operations/claim.sql`."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID

from runfold.ledger import log, names
from runfold.ledger.operations.project import Project
from runfold.ledger.payload import decode_payload, payload_member
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.run import Lease
from runfold.ledger.validation import check_int, check_lease_time, check_list, check_trimmed

CLAIM: Final = "SELECT * FROM ledger.claim($1, $2, $3, $4, $5, $6, $7, $8, $9)"
RESCAN_SECONDS: Final = 1.0
"""How long full batches may start at the marks. Then one starts at the beginning, to find runs
whose transactions were open for long."""
RESCAN_PART: Final = 0.05
"""The share of time that claims from the beginning may take: behind an old snapshot, each of them
walks the index entries of all runs that were taken since."""
QUICK_SECONDS: Final = 0.02
"""A claim from the beginning that takes less may follow every short batch at once: a run
before a mark may be committed late, as two concurrent submits commit in either order."""
MAX_MARKS: Final = 200
"""How many marks are kept. Beyond that, only those of the last batch are."""


class MarkColumns(NamedTuple):
    """Low-water marks as the parallel arrays of `ledger.claim`; empty to start at the beginning."""

    kinds: list[str]
    priorities: list[int]
    run_ids: list[UUID | None]
    dues: list[datetime | None]


class Marks:
    """For each kind and priority, the first run of the last batch: everything before it was taken.

    Runs that came back have marks of their own, by the instant at which they came due. Index
    entries of taken runs stay until vacuum, and as long as anyone holds an old snapshot vacuum
    cannot remove them; a claim from the beginning would walk ever more of them.
    """

    NONE: Final = MarkColumns([], [], [], [])

    def __init__(self) -> None:
        self._runs: dict[tuple[str, int], UUID] = {}
        self._dues: dict[tuple[str, int], datetime] = {}
        self._is_full = True
        self._rescan_at = 0.0
        self._rescan_if_short_at = 0.0
        self._last_seconds = deque([0.0, 0.0], maxlen=3)

    def current(self) -> MarkColumns:
        """Return the marks; none when it is time to start at the beginning."""
        rescan_at = self._rescan_at if self._is_full else self._rescan_if_short_at
        if time.monotonic() >= rescan_at:
            return self.NONE
        places = [*self._runs, *self._dues]
        return MarkColumns(
            [kind for kind, _ in places],
            [priority for _, priority in places],
            [*self._runs.values(), *[None] * len(self._dues)],
            [*[None] * len(self._runs), *self._dues.values()],
        )

    def may_rescan(self) -> bool:
        """Whether a batch that came back short may be filled from the beginning."""
        return time.monotonic() >= self._rescan_if_short_at

    def rescanned(self, seconds: float) -> None:
        """Note how long a claim from the beginning took; the next one waits accordingly."""
        now = time.monotonic()
        self._rescan_at = now + max(seconds / RESCAN_PART, RESCAN_SECONDS)
        self._last_seconds.append(seconds)
        usual = min(self._last_seconds)
        self._rescan_if_short_at = now + (usual / RESCAN_PART if usual > QUICK_SECONDS else 0)

    def remember(self, rows: Sequence[Mapping[str, Any]], *, full: bool) -> None:
        """Move each mark to its first run of this batch; after a short batch, look again soon."""
        self._is_full = full
        runs: dict[tuple[str, int], UUID] = {}
        dues: dict[tuple[str, int], datetime] = {}
        for row in rows:  # the oldest of each place comes first
            due = row["due_at"]
            if due is None:
                runs.setdefault((row["kind"], row["priority"]), row["run_id"])
            else:
                place = (row["kind"], row["priority"])
                dues[place] = min(due, dues.get(place, due))
        self._runs.update(runs)
        self._dues.update(dues)
        if len(self._runs) + len(self._dues) > MAX_MARKS:
            self._runs, self._dues = runs, dues


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
    check_trimmed("worker_id", worker_id)
    check_int("limit", limit, least=1, most=10_000)
    default = project.settings.lease_ttl_seconds
    lifetime = check_lease_time("ttl", default if ttl is None else ttl)
    only = None if kinds is None else check_kinds(kinds)

    async def send(count: int, start: MarkColumns) -> Sequence[Mapping[str, Any]]:
        return await fetch(
            project.pool, CLAIM, project.project_id, worker_id, only, count, lifetime, *start
        )

    async def rescan(count: int) -> Sequence[Mapping[str, Any]]:
        began = time.monotonic()
        rows = await send(count, Marks.NONE)
        marks.rescanned(time.monotonic() - began)
        return rows

    start = marks.current()
    rows = list(await send(limit, start) if start.kinds else await rescan(limit))
    if start.kinds and len(rows) < limit and marks.may_rescan():
        rows += await rescan(limit - len(rows))
    marks.remember(rows, full=len(rows) >= limit)
    leases = [_lease(row, worker_id, lifetime) for row in rows]
    _log_leases(project.log(worker_id=worker_id), leases)
    return leases


def check_kinds(kinds: Sequence[str]) -> list[str]:
    """Return the kinds of a claim, each once; raise InvalidValue unless it is a list."""
    check_list("kinds", kinds, "kinds")
    return sorted({check_trimmed("kind", kind) for kind in kinds})


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
    if not isinstance(value, str):
        return None
    with suppress(ValueError):
        return UUID(value)
    return None


def _log_leases(logger: Any, leases: Sequence[Lease]) -> None:
    for lease in leases if log.info_is_on(logger) else ():
        logger.info(
            names.LEASE_ACQUIRED,
            run_id=str(lease.run_id),
            attempt_count=lease.attempt,
            max_attempts=lease.max_attempts,
        )
