"""`runfold workers`: the workers that hold runs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from runfold.console.cli.kit.options import command, program
from runfold.console.cli.kit.output import EMPTY
from runfold.console.cli.kit.session import Session
from runfold.console.shared.plain import relative
from runfold.ledger.postgres.connections import fetch

TITLES: Final = ("WORKER", "HOLDS", "KINDS", "LAST BEAT", "LEASE ENDS", "OLDEST RUN")
_HOLDERS: Final = """
SELECT run.worker_id, count(*) AS held, array_agg(DISTINCT run.kind ORDER BY run.kind) AS kinds,
  max(run.heartbeat_at) AS heartbeat_at, min(run.lease_until) AS lease_until,
  min(run.started_at) AS oldest_started_at
FROM ledger.run_state AS run WHERE run.project_id = $1 AND run.token IS NOT NULL
GROUP BY run.worker_id ORDER BY run.worker_id
"""

app: Final = program()


@command(app, "workers", rights="read | work | audit")
async def workers(session: Session) -> None:
    """List the workers that hold runs.

    With the number of runs, their kinds, the last heartbeat and the end of the first lease. An idle
    worker holds nothing and is not listed.
    """
    async with session.ledger() as ledger:
        holders = await fetch(ledger.pool, _HOLDERS, ledger.project_id)
    if session.as_json:
        for holder in holders:
            session.out.json(dict(holder))
        return
    if not holders:
        session.out.talk("no worker holds a run")
        return
    now = datetime.now(UTC)
    colours = ["red" if holder["lease_until"] < now else None for holder in holders]
    session.out.table(TITLES, [_row(holder, now) for holder in holders], colours)


def _row(holder: Mapping[str, Any], now: datetime) -> tuple[str, ...]:
    beat, started = holder["heartbeat_at"], holder["oldest_started_at"]
    return (
        holder["worker_id"],
        f"{holder['held']:,}",
        ",".join(holder["kinds"]),
        relative(beat, now) if beat else EMPTY,
        relative(holder["lease_until"], now),
        relative(started, now) if started else EMPTY,
    )
