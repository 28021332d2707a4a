"""Checking that the ledger tells the truth about itself: chain, payloads, gaps, state and keys.

Tables are read themselves, not views; hashes and states are computed here, by the Python
definitions: so no function or view of the database can influence what is found. Runs are checked
range by range, each in a snapshot of its own, so that no check of a large project holds back a
vacuum.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final
from uuid import UUID

from runfold.ledger.archive.record import ARCHIVES, Archive, archive_of, archives, detached
from runfold.ledger.errors import ArchiveUnusable, DatabaseRefused, RunNotFound
from runfold.ledger.months import FIRST_RUN, LAST_RUN
from runfold.ledger.postgres.connections import FAILURES, Pool
from runfold.ledger.postgres.errors import translated
from runfold.ledger.proof.chain import ChainCheck, Finding
from runfold.ledger.proof.fold import StateCheck
from runfold.ledger.reading.archive_checks import check_archive, check_record, unusable
from runfold.ledger.reading.control_checks import UNCHECKED, check_control
from runfold.ledger.reading.key_checks import keys_of_range, keys_without_event
from runfold.ledger.reading.kind_checks import check_kinds, unlisted, unlisted_kinds
from runfold.ledger.reading.permitted import check_may_read
from runfold.ledger.reading.report import Report, Tally
from runfold.ledger.reading.snapshot import ranges, snapshot
from runfold.ledger.reading.states import STATES
from runfold.ledger.reading.tag_checks import check_tags
from runfold.ledger.validation import check_run_id

_PAGE: Final = 5_000
# OFFSET 0 makes each payload a lookup: on tables that were never analysed a join of a range with
# itself took a minute for 50,000 events, and it reads payloads of other ranges.
EVENTS: Final = """
SELECT event.*, payload.salt, payload.body FROM ledger.event AS event
LEFT JOIN LATERAL (
  SELECT payload.salt, payload.body FROM ledger.payload AS payload
  WHERE payload.project_id = event.project_id AND payload.run_id = event.run_id
    AND payload.version = event.version OFFSET 0
) AS payload ON true
WHERE event.project_id = $1 AND event.run_id BETWEEN $2 AND $3
ORDER BY event.run_id, event.version
"""
_ORPHANS: Final = f"""
SELECT payload.run_id, payload.version FROM ledger.payload AS payload
WHERE payload.project_id = $1 AND payload.run_id BETWEEN $2 AND $3
  AND NOT EXISTS (SELECT FROM ledger.event AS event
    WHERE event.project_id = payload.project_id AND event.run_id = payload.run_id
      AND event.version = payload.version OFFSET 0)
  AND NOT EXISTS (SELECT FROM {ARCHIVES} AS archive
    WHERE archive.detached AND payload.run_id >= archive.first AND payload.run_id < archive.beyond)
ORDER BY payload.run_id, payload.version
"""
_UNREADABLE: Final = ("XX", "22")
"""The classes of errors that a damaged row raises: internal ones, and those of data."""


async def verify(
    pool: Pool,
    project_id: str,
    run_id: UUID | str | None = None,
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Check one run or a whole project, archived months too; see `Ledger.verify`.

    Memory stays flat. What is written meanwhile may or may not be checked; it never looks like
    damage. `progress` is called with how many events are done. Raises RunNotFound or AccessDenied.
    """
    checked = None if run_id is None else check_run_id(run_id)
    await check_may_read(pool, project_id)
    try:
        report = await _Verification(pool, project_id, checked, progress).report()
    except (*FAILURES, OSError) as error:
        raise translated(error, (project_id,)) from error
    if checked is not None and not report.events and report.ok:
        raise RunNotFound(checked, project_id)
    return report


class _Verification:
    """One call of verify: its range of runs, and what it has found so far."""

    def __init__(
        self,
        pool: Pool,
        project_id: str,
        run_id: UUID | None,
        progress: Callable[[int], None] | None,
    ) -> None:
        self._pool, self._project_id = pool, project_id
        self._is_whole = run_id is None
        self._first, self._last = (FIRST_RUN, LAST_RUN) if run_id is None else (run_id, run_id)
        self._progress = progress
        self._tally = Tally()
        self._records: dict[str, list[Finding]] = {}
        """The findings of each record that was checked."""
        self._keys: dict[str, int] = {}
        """How many keys the file of each month has."""

    async def report(self) -> Report:
        """Check, and return the report."""
        async for first, last in ranges(self._pool, self._project_id, self._first, self._last):
            await self._check_range(first, last)
            if self._progress:
                self._progress(self._tally.events)
        if self._is_whole:
            for archive in await archives(self._pool):
                if archive.state == "exported":
                    self._tally.found(await self._findings_of_record(archive))
            async for finding in keys_without_event(self._pool, self._project_id, self._keys):
                self._tally.found([finding])
            self._tally.found(await check_kinds(self._pool, self._project_id))
            self._tally.found(await check_tags(self._pool, self._project_id))
            control = await check_control(self._pool)
            if control is None:
                self._tally.unchecked.append(UNCHECKED)
            self._tally.found(control or ())
        self._tally.found(unlisted(kind) for kind in sorted(self._tally.unlisted))
        return self._tally.report()

    async def _check_range(self, first: UUID, last: UUID) -> None:
        """Check a range, in the database and in the files of archived months."""
        tally, files = await self._check_database(first, last)
        self._tally.add(tally)
        for archive in files:
            start = max(first, archive.first)
            end = min(last, UUID(int=archive.beyond.int - 1))
            await self._check_archive(archive, start, end)

    async def _check_database(self, first: UUID, last: UUID) -> tuple[Tally, list[Archive]]:
        """Check what of a range is in the database; halve it until each unreadable run is named."""
        try:
            async with snapshot(self._pool) as connection:
                tally = await _check_snapshot(connection, self._project_id, first, last)
                return tally, await detached(connection, first, last)
        except (DatabaseRefused, ValueError) as error:
            if isinstance(error, DatabaseRefused) and error.sqlstate[:2] not in _UNREADABLE:
                raise
            if first == last:
                tally = Tally()
                tally.found([Finding(first, None, "unreadable", f"cannot be read: {error}")])
                return tally, []
        middle = UUID(int=(first.int + last.int) // 2)
        tally, files = await self._check_database(first, middle)
        other, more = await self._check_database(UUID(int=middle.int + 1), last)
        tally.add(other)
        return tally, [*files, *(file for file in more if file not in files)]

    async def _check_archive(self, archive: Archive, first: UUID, last: UUID) -> None:
        """Check what of a range is in a file; in the database, if it was attached meanwhile."""
        wrong = await self._findings_of_record(archive)
        try:
            tally, keys = await check_archive(self._pool, archive, self._project_id, first, last)
        except ArchiveUnusable as error:
            now = await archive_of(self._pool, archive.month)
            if now is not None and not now.detached:
                await self._check_range(first, last)
            else:
                self._tally.found(wrong or [unusable(archive, error)])
            return
        self._keys[archive.month] = self._keys.get(archive.month, 0) + keys
        self._tally.found(wrong)
        self._tally.add(tally)

    async def _findings_of_record(self, archive: Archive) -> list[Finding]:
        """Return what is wrong with the record of a month; nothing when it was reported before."""
        if archive.month in self._records:
            return []
        self._records[archive.month] = await check_record(archive)
        return self._records[archive.month]


async def _check_snapshot(connection: Any, project_id: str, first: UUID, last: UUID) -> Tally:
    """Check the part of a range that is in the database, in the connection's snapshot."""
    tally, chain, states = Tally(), ChainCheck(), StateCheck()
    kinds: set[str] = set()
    async for row in connection.cursor(EVENTS, project_id, first, last, prefetch=_PAGE):
        chain.add(row)
        states.add(row)
        if row["version"] == 1 and row["kind"] is not None:
            kinds.add(row["kind"])
    chain.close()
    tally.chain(chain)
    tally.drift(states.drift(await connection.fetch(STATES, project_id, first, last)))
    orphans = await connection.fetch(_ORPHANS, project_id, first, last)
    tally.found(_orphan(row) for row in orphans)
    tally.unlisted |= await unlisted_kinds(connection, project_id, kinds)
    tally.found(await keys_of_range(connection, project_id, first, last))
    return tally


def _orphan(row: Mapping[str, Any]) -> Finding:
    return Finding(row["run_id"], row["version"], "payload", "a payload that belongs to no event")
