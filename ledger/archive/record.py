"""The records of archived months: what was done with each, and how it stands now.

They are read from the table itself. The view `ledger.archive` says the same for everybody else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from io import BufferedReader
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from runfold.ledger.archive.file import digest, opened
from runfold.ledger.archive.watched import OnStep, unwatched
from runfold.ledger.errors import ArchiveUnusable
from runfold.ledger.months import FIRST_RUN, LAST_RUN, check_month
from runfold.ledger.postgres.connections import Pool, fetch
from runfold.ledger.settings import Settings

ARCHIVES: Final = """(
  SELECT DISTINCT ON (event.month) event.month, split_part(event.type, '.', 2) AS state,
    event.type = 'archive.detached' AS detached, event.recorded_at, event.actor, event.reason,
    event.first, event.beyond, event.runs, event.events, event.payloads, event.generation,
    event.last_position, event.last_txid, event.size_bytes, event.sha256, event.file
  FROM ledger.archive_event AS event
  WHERE event.type IN ('archive.exported', 'archive.detached', 'archive.attached')
  ORDER BY event.month, event.number DESC
)"""
"""A relation for a FROM clause: how each month that was ever archived stands."""
_ALL: Final = f"SELECT * FROM {ARCHIVES} AS archive"
_MONTH: Final = f"{_ALL} WHERE month = $1"
_DETACHED: Final = f"{_ALL} WHERE detached AND first <= $2 AND beyond > $1 ORDER BY first"
OF_A_MONTH: Final = "*"
"""The project of the records of a whole month, which has runs of all projects."""
# The table first, as the insert below locks it: a detach has the table when it comes to the list.
_LOCK_TABLE: Final = "LOCK TABLE ledger.archive_event IN ROW EXCLUSIVE MODE"
LOCK_ALL: Final = "LOCK TABLE ledger.archive_event IN SHARE ROW EXCLUSIVE MODE"
"""Waits for whoever adds a record, and keeps others from it until the transaction ends."""
_LOCK_LIST: Final = "SELECT ledger.lock_control($1)"
_RECORD: Final = """
INSERT INTO ledger.archive_event (project_id, number, recorded_at, type, actor, reason, month,
  run_id, first, beyond, runs, events, payloads, generation, last_position, last_txid, size_bytes,
  sha256, file)
SELECT $5, (SELECT coalesce(max(recorded.number), 0) + 1 FROM ledger.archive_event AS recorded
    WHERE recorded.project_id = $5),
  ledger.now(), $1, $2, $3, $4, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17
"""
_FACTS: Final = (
    "first", "beyond", "runs", "events", "payloads", "generation", "last_position", "last_txid",
    "size_bytes", "sha256", "file",
)  # fmt: skip
_HISTORY: Final = """
SELECT project_id, number, recorded_at, type, actor, reason, month, run_id, events, size_bytes,
  sha256, file
FROM ledger.archive_event WHERE $1::text IS NULL OR month = $1
ORDER BY recorded_at, project_id, number
"""


@dataclass(frozen=True, slots=True)
class Archive:
    """An exported month's state: exported, detached (in the file only) or attached again.

    Its runs are those from `first` to before `beyond`. `generation`, `last_position` and
    `last_txid` are the place of its newest event in the feed.
    """

    month: str
    state: str
    detached: bool
    recorded_at: datetime
    actor: str
    reason: str | None
    first: UUID
    beyond: UUID
    runs: int
    events: int
    payloads: int
    generation: int
    last_position: int
    last_txid: int | None
    size_bytes: int
    sha256: bytes
    file: str

    @property
    def path(self) -> Path:
        """Where the file is: where it was written, or in the folder of RUNFOLD_ARCHIVE."""
        folder = Settings.load().archive
        return Path(self.file) if folder is None else folder / Path(self.file).name

    @contextmanager
    def opened(self, on_step: OnStep = unwatched) -> Iterator[BufferedReader]:
        """Open the file that was recorded; raise ArchiveUnusable if it is another.

        What is read from it is what was checked: another file of that name is not looked at, and
        a file that is written to meanwhile is refused at the end of the block.
        """
        with opened(self.path) as file:
            self._check(file, on_step)
            yield file
            self._check(file, on_step)

    def check_digest(self, on_step: OnStep = unwatched) -> None:
        """Raise ArchiveUnusable unless the file is the one that was recorded."""
        with opened(self.path) as file:
            self._check(file, on_step)

    def _check(self, file: BufferedReader, on_step: OnStep) -> None:
        if digest(file, on_step) != (self.size_bytes, self.sha256):
            raise ArchiveUnusable(
                str(self.path), "is not the file that was recorded: its size or SHA-256 differs"
            )


async def archives(source: Any) -> list[Archive]:
    """Return every month that was ever exported, in the order of the months."""
    return [Archive(**row) for row in await fetch(source, _ALL)]


async def archive_of(source: Any, month: str) -> Archive | None:
    """Return how a month stands; None if it was never exported."""
    rows = await fetch(source, _MONTH, month)
    return Archive(**rows[0]) if rows else None


async def detached(source: Any, first: UUID = FIRST_RUN, last: UUID = LAST_RUN) -> list[Archive]:
    """Return the months whose events are in files only and have runs from `first` to `last`."""
    return [Archive(**row) for row in await fetch(source, _DETACHED, first, last)]


async def history(pool: Pool, month: str | None = None) -> list[Mapping[str, Any]]:
    """Return what was done with a month, or with all, oldest first. Raises InvalidValue."""
    return list(await fetch(pool, _HISTORY, None if month is None else check_month(month)))


async def record(
    connection: Any,
    type_: str,
    month: str,
    facts: Mapping[str, Any] | None = None,
    *,
    actor: str,
    reason: str | None,
    run: tuple[str, UUID] | None = None,
) -> None:
    """Record what was done with a month, or with the month of a run; `facts` are of its file.

    A run's records are numbered in its project, all others by themselves: a project's numbers tell
    of no other. Locks: that list of the control history, which fails after two seconds.
    """
    known = facts or {}
    project_id, run_id = run or (OF_A_MONTH, None)
    values = (type_, actor, reason, month, project_id, run_id)
    async with connection.transaction():
        await fetch(connection, _LOCK_TABLE)
        await fetch(connection, _LOCK_LIST, project_id)
        await fetch(connection, _RECORD, *values, *(known.get(name) for name in _FACTS))


async def record_archive(
    connection: Any,
    type_: str,
    month: str,
    facts: Mapping[str, Any],
    *,
    actor: str,
    reason: str | None,
) -> Archive:
    """Record an export, detach or attach, and return how the month stands."""
    await record(connection, type_, month, facts, actor=actor, reason=reason)
    [row] = await fetch(connection, _MONTH, month)
    return Archive(**row)
