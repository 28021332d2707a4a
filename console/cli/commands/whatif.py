"""`runfold whatif`: replay the recorded leases and heartbeats under another policy."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final
from uuid import UUID

import typer

from runfold.console.cli.kit.options import command, program
from runfold.console.cli.kit.output import Output
from runfold.console.cli.kit.session import Session
from runfold.console.shared.plain import moment, number_of, span
from runfold.console.shared.values import duration, instant
from runfold.ledger.archive.record import detached
from runfold.ledger.months import FIRST_RUN, bounds
from runfold.ledger.postgres.clock import ledger_now
from runfold.ledger.validation import check_duration, check_instant, check_int
from runfold.projections.whatif import Policy, Verdict, WhatIf, judge

app: Final = program()


@command(app, "whatif", rights="read | work | audit")
async def whatif(
    session: Session,
    *,
    ttl: Annotated[
        str | None,
        typer.Option("--ttl", metavar="TIME", help="Leases of this length; else as recorded."),
    ] = None,
    heartbeat: Annotated[
        str | None,
        typer.Option(
            "--heartbeat", metavar="TIME", help="Heartbeats this often; else as recorded."
        ),
    ] = None,
    max_attempts: Annotated[
        int | None,
        typer.Option("--max-attempts", metavar="N", help="Attempts of a run; else as submitted."),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since", metavar="TIME", help="Only runs submitted since this time (with its zone)."
        ),
    ] = None,
    reaper: Annotated[
        str | None,
        typer.Option(
            "--reaper", metavar="TIME", help="Time between sweeps; else RUNFOLD_REAPER_SECONDS."
        ),
    ] = None,
    recorded_heartbeat: Annotated[
        str | None,
        typer.Option(
            "--recorded-heartbeat",
            metavar="TIME",
            help="How often workers beat at the time; else RUNFOLD_HEARTBEAT_SECONDS.",
        ),
    ] = None,
) -> None:
    """Replay recorded leases under another policy.

    Before you change lease time, heartbeat or attempts: see which runs would have been reaped or
    failed, and when.
    """

    def length(name: str, text: str | None) -> timedelta | None:
        return None if text is None else check_duration(name, duration(name, text), positive=True)

    start = None if since is None else _since(since)
    attempts = None if max_attempts is None else check_int("--max-attempts", max_attempts, least=1)
    changes = length("--ttl", ttl), length("--heartbeat", heartbeat), attempts
    recorded, sweep = length("--recorded-heartbeat", recorded_heartbeat), length("--reaper", reaper)
    async with session.ledger() as ledger:
        settings = ledger.settings
        policy = Policy(
            *changes,
            recorded_beat=recorded or timedelta(seconds=settings.heartbeat_seconds),
            sweep=sweep or timedelta(seconds=settings.reaper_seconds),
        )
        what_if = WhatIf(policy, await ledger_now(ledger.pool))
        counts: Counter[str] = Counter()
        async for verdict in judge(ledger, what_if, start):
            _write(session.out, verdict)
            counts[verdict.outcome if verdict.certain else f"possibly {verdict.outcome}"] += 1
        left_out = await detached(ledger.pool, _first_run(start))
    session.out.talk(_summary(what_if, counts))
    for month in left_out:
        session.out.talk(
            f"left out: the runs of {month.month}, which are archived "
            f"(runfold archive attach {month.month})"
        )


def _since(text: str) -> datetime:
    """Return the instant of `--since`, within the years that runs can have."""
    return check_instant("--since", instant("--since", text)).astimezone(UTC)


def _first_run(start: datetime | None) -> UUID:
    return FIRST_RUN if start is None else bounds(f"{start:%Y-%m}")[0]


def _write(out: Output, verdict: Verdict) -> None:
    if out.as_json:
        out.json(verdict)
        return
    word = verdict.outcome if verdict.certain else f"{verdict.outcome}?"
    silent = (
        ""
        if verdict.silent is None
        else f"  silent for {'' if verdict.certain else 'up to '}{span(verdict.silent)}"
    )
    recorded = "still leased" if verdict.recorded is None else f"recorded: {verdict.recorded}"
    out.line(
        f"{verdict.run_id} {word:<9} {moment(verdict.at)}  "
        f"attempt {verdict.attempt} of {verdict.max_attempts}  "
        f"{verdict.kind} by {verdict.worker_id}{silent}  {recorded}"
    )


def _summary(what_if: WhatIf, counts: Counter[str]) -> str:
    shown = (
        ", ".join(f"{number:,} {outcome}" for outcome, number in counts.most_common())
        or "no run would have gone differently"
    )
    judged = ", ".join(
        (
            number_of(what_if.runs, "run"),
            number_of(what_if.leases, "lease"),
            number_of(what_if.beats, "beat"),
        )
    )
    return f"{judged}: {shown}"
