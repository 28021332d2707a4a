"""Checks of archived months: files against their records, and against the rows that stayed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from runfold.ledger.archive.file import counts
from runfold.ledger.archive.reading import whole_runs
from runfold.ledger.archive.record import Archive
from runfold.ledger.archive.watched import OnStep, Watched
from runfold.ledger.errors import ArchiveUnusable
from runfold.ledger.months import bounds, is_month
from runfold.ledger.postgres.connections import Pool
from runfold.ledger.proof.chain import ChainCheck, Finding, forgotten_key
from runfold.ledger.proof.encoding import commits_to
from runfold.ledger.proof.fold import StateCheck
from runfold.ledger.reading.report import Tally
from runfold.ledger.reading.snapshot import snapshot

STATES: Final = """
SELECT run.* FROM ledger.run_state AS run WHERE run.project_id = $1 AND run.run_id BETWEEN $2 AND $3
"""
_PAYLOADS: Final = """
SELECT run_id, version, salt, body FROM ledger.payload
WHERE project_id = $1 AND run_id BETWEEN $2 AND $3
"""
_COMMANDS: Final = (
    "SELECT key, run_id, version, hash FROM ledger.command WHERE project_id = $1 AND key = ANY ($2)"
)


async def check_record(archive: Archive) -> list[Finding]:
    """Check a file against what was recorded of it: size, SHA-256, bounds and counts."""
    if not is_month(archive.month):
        return [Finding(None, None, "archive", f"{archive.month}: is not a month")]
    try:
        watched = Watched(archive.path)
        counted = await watched.call(_counted, archive, watched.step)
    except ArchiveUnusable as error:
        return [unusable(archive, error)]
    first, beyond = bounds(archive.month)
    held: Mapping[str, object] = {**counted, "first": first, "beyond": beyond}
    return [
        Finding(
            None,
            None,
            "archive",
            f"{archive.month}: recorded {name} is {getattr(archive, name)}, of the file {value}",
        )
        for name, value in held.items()
        if getattr(archive, name) != value
    ]


def _counted(archive: Archive, on_step: OnStep) -> dict[str, int]:
    with archive.opened(on_step) as file:
        return counts(file, on_step)


async def check_archive(
    pool: Pool, archive: Archive, project_id: str, first: UUID, last: UUID
) -> tuple[Tally, int]:
    """Check the runs of a file from `first` to `last`; return also how many keys they have.

    Every run is checked against `run_state`, and the payloads and keys that stayed in the database
    against the events. Raises ArchiveUnusable.
    """
    tally, chain, keys = Tally(), ChainCheck(), 0
    async for start, end, rows in whole_runs(archive, project_id, first, last):
        for row in rows:
            chain.add(row)
        keys += sum(row["key"] is not None for row in rows)
        async with snapshot(pool) as connection:
            await _check_part(connection, (project_id, start, end), rows, tally)
    chain.close()
    tally.chain(chain)
    return tally, keys


async def _check_part(
    connection: Any,
    part: tuple[str, UUID, UUID],
    rows: Sequence[Mapping[str, Any]],
    tally: Tally,
) -> None:
    """Check runs of a file; `part` is their project, and their first and last possible id."""
    states = StateCheck()
    for row in rows:
        states.add(row)
    payloads = await connection.fetch(_PAYLOADS, *part)
    tally.found(_payloads(rows, states, payloads))
    events = {row["key"]: row for row in rows if row["key"] is not None}
    commands = await connection.fetch(_COMMANDS, part[0], list(events))
    kept = {row["key"] for row in commands if _names(row, events[row["key"]])}
    tally.found(
        forgotten_key(event["run_id"], event["version"], key)
        for key, event in events.items()
        if key not in kept
    )
    tally.drift(states.drift(await connection.fetch(STATES, *part)))


def _names(command: Mapping[str, Any], event: Mapping[str, Any]) -> bool:
    """Whether a stored key names the event that bears it; the key of a submit has no hash."""
    return (
        command["run_id"] == event["run_id"]
        and command["version"] == event["version"]
        and command["hash"] in (None, event["hash"])
    )


def _payloads(
    rows: Sequence[Mapping[str, Any]], states: StateCheck, kept: Sequence[Mapping[str, Any]]
) -> Iterator[Finding]:
    """Yield the payloads in the database that differ from the file's, and those that are missing.

    The input and the outcome of a run stay in the database.
    """
    hashes = {(row["run_id"], row["version"]): row["payload_hash"] for row in rows}
    for payload in kept:
        event = (payload["run_id"], payload["version"])
        if not commits_to(hashes.pop(event, None), payload["salt"], payload["body"]):
            problem = (
                "the payload that stayed in the database is not the one that the archived event "
                "commits to"
            )
            yield Finding(*event, "payload", problem)
    erased = {
        (row["run_id"], row["compensates"]) for row in rows if row["type"] == "payload.erased"
    }
    for event, committed in hashes.items():
        state = states.state(event[0])
        stays = event[1] == 1 or (state is not None and event[1] == state["outcome_version"])
        if committed is not None and stays and event not in erased:
            yield Finding(*event, "payload", "the payload should have stayed in the database")


def unusable(archive: Archive, error: ArchiveUnusable) -> Finding:
    """Return the finding that a file cannot be used."""
    return Finding(None, None, "archive", f"{archive.month}: {error}")
