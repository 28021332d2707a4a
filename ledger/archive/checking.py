"""Checking an archived month: its file against its record, and what stayed against the file."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from runfold.ledger.archive.reading import as_json, whole_runs
from runfold.ledger.archive.record import Archive
from runfold.ledger.errors import ArchiveUnusable
from runfold.ledger.proof.chain import ChainCheck, Finding, forgotten_key
from runfold.ledger.proof.encoding import payload_hash

DRIFT: Final = "SELECT * FROM ledger.drift_events($1, $2, $3, $4::json)"
_KEPT: Final = """
SELECT run_id, version, salt, body FROM ledger.payload
WHERE project_id = $1 AND run_id BETWEEN $2 AND $3
"""
_COMMANDS: Final = (
    "SELECT key, run_id, version FROM ledger.command WHERE project_id = $1 AND key = ANY ($2)"
)


async def check(
    connection: Any,
    archive: Archive,
    project_id: str,
    first: UUID,
    last: UUID,
    *,
    chain: ChainCheck,
) -> tuple[list[Finding], list[Mapping[str, Any]]]:
    """Take an archived month to `chain`; return other findings, and states that are not its fold.

    Checks the file against its record, every run against `run_state`, and the payloads and keys
    that stayed in the database against the events. A finding raises nothing.
    """
    findings: list[Finding] = []
    drifted: list[Mapping[str, Any]] = []
    try:
        await asyncio.to_thread(archive.check_digest)
        async for start, end, rows in whole_runs(archive, project_id, first, last):
            for row in rows:
                chain.add(row)
            drifted += await connection.fetch(DRIFT, project_id, start, end, as_json(rows))
            hashes = {(row["run_id"], row["version"]): row["payload_hash"] for row in rows}
            for kept in await connection.fetch(_KEPT, project_id, start, end):
                if hashes.get((kept["run_id"], kept["version"])) != payload_hash(
                    kept["salt"], kept["body"]
                ):
                    problem = (
                        "the payload that stayed in the database is not the one that the "
                        "archived event commits to"
                    )
                    findings.append(Finding(kept["run_id"], kept["version"], "payload", problem))
            keys = {
                row["key"]: (row["run_id"], row["version"])
                for row in rows
                if row["key"] is not None
            }
            commands = await connection.fetch(_COMMANDS, project_id, list(keys))
            held = {row["key"]: (row["run_id"], row["version"]) for row in commands}
            findings += [
                forgotten_key(*event, key) for key, event in keys.items() if held.get(key) != event
            ]
    except ArchiveUnusable as error:
        findings.append(Finding(None, None, "archive", f"{archive.month}: {error}"))
    return findings, drifted
