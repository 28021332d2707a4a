"""Reading what is archived: histories, states and proofs of runs whose events are in a file.

The file is believed as far as it proves itself: the hash of a run's last event is in `run_state`,
which stays in the database.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from runfold.ledger.archive.file import EVENT, pages
from runfold.ledger.archive.record import Archive, detached
from runfold.ledger.archive.watched import Watched
from runfold.ledger.errors import ArchiveUnusable
from runfold.ledger.months import FIRST_RUN, LAST_RUN
from runfold.ledger.payload import decode_payload, payload_member
from runfold.ledger.postgres.connections import Pool, fetch
from runfold.ledger.proof.chain import ChainCheck
from runfold.ledger.run import Run

_FOLDED: Final = "SELECT * FROM ledger.fold_events($1::json)"


async def entries(pool: Pool, run: Run) -> list[Any]:
    """Return the rows of an archived run's history, checked against `run`; none if not archived.

    Raises ArchiveUnusable.
    """
    histories = await _entries(pool, run.project_id, {run.run_id: run.hash})
    return histories.get(run.run_id, [])


async def states_at(
    pool: Pool,
    project_id: str,
    runs: Mapping[UUID, bytes],
    *,
    version: int | None = None,
    time: datetime | None,
) -> list[Run]:
    """Return those of these runs that are archived, as they were at a version or instant.

    `runs` has the hash of each run's last event. Raises ArchiveUnusable.
    """
    rows = {
        run_id: [
            row
            for row in history
            if (version is None or row["version"] <= version)
            and (time is None or row["recorded_at"] <= time)
        ]
        for run_id, history in (await _entries(pool, project_id, runs)).items()
    }
    folded = await fetch(
        pool, _FOLDED, as_json(row for history in rows.values() for row in history)
    )
    return [
        _run(state, {row["version"]: row["body"] for row in rows[state["run_id"]]})
        for state in folded
    ]


async def _entries(
    pool: Pool, project_id: str, runs: Mapping[UUID, bytes]
) -> dict[UUID, list[Any]]:
    rows: dict[UUID, list[Any]] = {}
    if not runs:
        return rows
    for archive in await detached(pool, min(runs), max(runs)):
        ids = {run_id for run_id in runs if archive.first <= run_id < archive.beyond}
        if not ids:
            continue
        async for page in _pages(archive, project_id, min(ids), max(ids)):
            for row in page:
                if row["run_id"] in ids:
                    rows.setdefault(row["run_id"], []).append(row)
        for run_id in ids:
            _check_run(archive, rows.get(run_id, []), runs[run_id])
    return rows


def _check_run(archive: Archive, rows: Sequence[Mapping[str, Any]], last_hash: bytes) -> None:
    chain = ChainCheck()
    for row in rows:
        chain.add(row)
    chain.close()
    if chain.findings:
        raise ArchiveUnusable(
            str(archive.path), f"does not hold what was recorded: {chain.findings[0].detail}"
        )
    if not rows or bytes(rows[-1]["hash"]) != last_hash:
        raise ArchiveUnusable(
            str(archive.path), "does not hold the run's history up to the hash in run_state"
        )


def _run(state: Mapping[str, Any], bodies: Mapping[int, str | None]) -> Run:
    submitted = decode_payload(bodies.get(1))
    outcome = decode_payload(bodies.get(state["outcome_version"] or 0))
    return Run.from_state(
        state,
        input=payload_member(submitted, "input"),
        output=payload_member(outcome, "output"),
        error_detail=payload_member(outcome, "error_detail"),
    )


def as_json(rows: Iterable[Mapping[str, Any]]) -> str:
    """Write rows as a JSON list that the database reads as rows of table `event`."""
    return json.dumps(
        [{name: _written(row[name]) for name, _ in EVENT if row[name] is not None} for row in rows]
    )


def _written(value: Any) -> Any:
    if isinstance(value, bytes):
        return f"\\x{value.hex()}"
    if isinstance(value, datetime):
        return value.isoformat()
    return value if isinstance(value, int | list) else str(value)


async def whole_runs(
    archive: Archive, project_id: str, first: UUID = FIRST_RUN, last: UUID = LAST_RUN
) -> AsyncIterator[tuple[UUID, UUID, list[Any]]]:
    """Yield a project's rows in the file, cut between runs: first and last run of each part.

    Raises ArchiveUnusable.
    """
    start, end = max(first, archive.first), min(last, UUID(int=archive.beyond.int - 1))
    held: list[Any] = []
    async for page in _pages(archive, project_id, start, end):
        held += page
        newest = held[-1]["run_id"]
        whole = [row for row in held if row["run_id"] != newest]
        if whole:
            held = [row for row in held if row["run_id"] == newest]
            yield start, whole[-1]["run_id"], whole
            start = UUID(int=whole[-1]["run_id"].int + 1)
    yield start, end, held


async def _pages(
    archive: Archive, project_id: str, first: UUID, last: UUID
) -> AsyncIterator[list[Any]]:
    """Read a file page by page, away from the event loop."""
    reading, watched = pages(archive.path, project_id, first, last), Watched(archive.path)
    while (page := await watched.call(next, reading, None)) is not None:
        yield page
