"""`runfold top`: what is alive, on one screen that renews itself."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import typer
from rich.text import Text

from runfold.console.cli.kit.live_screen import has_screen, renew
from runfold.console.cli.kit.options import command, program
from runfold.console.cli.kit.output import COLOURS, console
from runfold.console.cli.kit.session import Session
from runfold.console.cli.kit.table import table_lines
from runfold.console.shared.plain import relative
from runfold.console.shared.worker_queries import holders, refused_writes
from runfold.ledger import Ledger
from runfold.ledger.lifecycle import TERMINAL, State
from runfold.ledger.postgres.connections import fetch

MOST: Final = 10_000
"""Runs of a state up to which they are counted."""
WORKERS: Final = 200
REFUSALS: Final = 5
LIVE: Final = tuple(state for state in State if state not in TERMINAL)
# Kind by kind, in the three indexes that each run lies in one of: see ledger/reading/run_lists.py.
# A row of the state and the id is compared, so that only the index of the others has the order.
_STATES: Final = f"""
SELECT wanted.state, count(found.run_id) AS runs, min(found.available_at) AS oldest_at
FROM unnest($2::text[]) AS wanted (state) LEFT JOIN LATERAL (
  SELECT part.* FROM (SELECT DISTINCT known.kind FROM ledger.kind AS known
    WHERE known.project_id = $1) AS kinds
  CROSS JOIN LATERAL (
    (SELECT held.run_id, held.available_at FROM (
      SELECT run.* FROM ledger.run_state AS run
      WHERE run.project_id = $1 AND run.kind = kinds.kind AND run.token IS NOT NULL OFFSET 0
    ) AS held WHERE held.state = wanted.state)
    UNION ALL (
      SELECT run.run_id, run.available_at FROM ledger.run_state AS run
      WHERE wanted.state = 'pending' AND run.project_id = $1 AND run.kind = kinds.kind
        AND run.available_at <= run.created_at
      ORDER BY run.priority, run.run_id LIMIT {MOST})
    UNION ALL (
      SELECT run.run_id, run.available_at FROM ledger.run_state AS run
      WHERE run.project_id = $1 AND run.kind = kinds.kind AND run.token IS NULL
        AND (run.available_at <= run.created_at) IS NOT TRUE
        AND (run.state, run.run_id) >= (wanted.state, '00000000-0000-0000-0000-000000000000')
        AND (run.state, run.run_id) <= (wanted.state, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
      ORDER BY run.state, run.run_id LIMIT {MOST})
  ) AS part LIMIT {MOST}) AS found ON true
GROUP BY wanted.state
"""
_WORKERS: Final = f"""
SELECT worker_id, leases, heard_at, ends_first FROM ({holders(MOST, WORKERS)}) AS holders
"""
_REFUSALS: Final = f"""
SELECT recorded_at, worker_id, name, run_id FROM ({refused_writes(REFUSALS)}) AS refused
"""

app: Final = program()


@command(app, "top", rights="read | work | audit")
async def top(
    session: Session,
    *,
    every: Annotated[
        float, typer.Option("--every", min=0.5, max=3_600, metavar="SECONDS", help="How often.")
    ] = 2.0,
) -> None:
    """Show what is alive, on one screen that renews itself.

    Runs by state, workers and refused writes, until q or Ctrl-C. A state is counted up to 10,000
    runs. Without a terminal, and with --json, once.
    """
    async with session.ledger() as ledger:
        if has_screen() and not session.as_json:

            async def draw(width: int, height: int) -> Sequence[Text]:
                return screen(await alive(ledger), width, height)

            await renew(draw, every)
            return
        sample = await alive(ledger)
        if session.as_json:
            session.out.json(sample)
            return
        for line in screen(sample, console(sys.stdout).width, None):
            session.out.line(line)


async def alive(ledger: Ledger) -> dict[str, Any]:
    """Return what the screen shows."""
    names = [state.value for state in LIVE]
    by_state = {r["state"]: r for r in await fetch(ledger.pool, _STATES, ledger.project_id, names)}
    return {
        "project": ledger.project_id,
        "at": datetime.now(UTC),
        "states": {name: by_state[name]["runs"] for name in names},
        "oldest_pending_at": by_state[State.PENDING.value]["oldest_at"],
        "workers": [dict(r) for r in await fetch(ledger.pool, _WORKERS, ledger.project_id)],
        "refusals": [dict(r) for r in await fetch(ledger.pool, _REFUSALS, ledger.project_id)],
    }


def screen(sample: Mapping[str, Any], width: int, height: int | None) -> list[Text]:
    """Return the lines of a sample that fit; `height` None: all of them."""
    now = sample["at"]
    oldest = sample["oldest_pending_at"]
    lines = [Text(f"{sample['project']} at {now:%H:%M:%S} UTC", style="bold")]
    lines += [
        Text(f"{name:<17}{_counted(runs):>8}", style=COLOURS.get(State(name), ""))
        for name, runs in sample["states"].items()
    ]
    if oldest is not None:
        lines.append(Text(f"oldest pending: {relative(oldest, now)}"))
    lines.append(Text())
    workers = [
        (row["worker_id"], f"{row['leases']:,}", _ago(row["heard_at"], now),
         relative(row["ends_first"], now))
        for row in sample["workers"]
    ]  # fmt: skip
    late = ["red" if row["ends_first"] < now else None for row in sample["workers"]]
    lines += table_lines(("WORKER", "HOLDS", "LAST BEAT", "LEASE ENDS"), workers, late, width)
    if not workers:
        lines.append(Text("no worker holds a run"))
    refused = [
        (str(row["run_id"])[-12:], row["worker_id"] or "-", row["name"] or "-",
         relative(row["recorded_at"], now))
        for row in sample["refusals"]
    ]  # fmt: skip
    tail: list[Text] = []
    if refused:
        titles = ("REFUSED", "WORKER", "WRITE", "WHEN")
        tail = [Text(), *table_lines(titles, refused, [None] * len(refused), width)]
    if height is None:
        return lines + tail
    end = Text("q ends", style="dim")
    return [*lines[: max(height - len(tail) - 1, 1)], *tail, end][:height]


def _counted(runs: int) -> str:
    return f"{runs:,}" if runs < MOST else f">={MOST:,}"


def _ago(moment: datetime | None, now: datetime) -> str:
    return "-" if moment is None else relative(moment, now)
