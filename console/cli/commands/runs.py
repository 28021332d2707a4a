"""`runfold runs`: list runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Final
from uuid import UUID

import typer
from rich.text import Text

from runfold.console.cli.kit.live_screen import has_screen, renew
from runfold.console.cli.kit.options import command, program
from runfold.console.cli.kit.output import COLOURS, EMPTY, Output
from runfold.console.cli.kit.run_id import find_run
from runfold.console.cli.kit.run_options import RunOptions, count_runs
from runfold.console.cli.kit.session import Session
from runfold.console.cli.kit.table import table_lines
from runfold.console.shared.plain import clean, compact, money, number_of, span
from runfold.console.shared.values import Misuse, instant
from runfold.ledger import Ledger, Run
from runfold.ledger.reading.search import Page

TITLES: Final = (
    "RUN", "KIND", "STATE", "ATTEMPT", "AGE", "WORKER", "COST", "ERROR", "KEY", "TAGS", "INPUT",
)  # fmt: skip
WATCH_SECONDS: Final = 2.0
_INPUT: Final = 60
"""Characters shown of a run's input."""

app: Final = program()


@command(app, "runs", rights="read | work | audit")
async def runs(
    session: Session,
    query: Annotated[
        str | None,
        typer.Argument(
            metavar="QUERY", help="What runs must have, such as 'state:failed cost:>0.5 since:24h'."
        ),
    ] = None,
    *,
    states: Annotated[
        list[str] | None,
        typer.Option(
            "--state",
            metavar="STATE",
            help="Only these states; may be repeated, or joined by commas.",
        ),
    ] = None,
    kind: Annotated[
        str | None, typer.Option("--kind", metavar="KIND", help="Only this kind.")
    ] = None,
    worker: Annotated[
        str | None, typer.Option("--worker", metavar="NAME", help="Only what this worker holds.")
    ] = None,
    tag: Annotated[
        str | None, typer.Option("--tag", metavar="TAG", help="Only with this tag.")
    ] = None,
    key: Annotated[
        str | None, typer.Option("--key", metavar="KEY", help="Only with this key.")
    ] = None,
    limit: Annotated[
        int,
        typer.Option(
            "--limit", metavar="N", help="At most this many, up to 10,000; with a QUERY, 1,000."
        ),
    ] = 20,
    before: Annotated[
        str | None,
        typer.Option(
            "--before", metavar="RUN", help="Continue after the last run of an earlier page."
        ),
    ] = None,
    after: Annotated[
        str | None,
        typer.Option("--after", metavar="RUN", help="Go back before the first run of a page."),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="TIME", help="Only those submitted from this time on."),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option("--until", metavar="TIME", help="Only those submitted before this time."),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option("--at", metavar="TIME", help="As they were at this time (with its zone)."),
    ] = None,
    count: Annotated[
        bool,
        typer.Option(
            "--count", help="Only count, by state: reads each that fits. Not with times or cursors."
        ),
    ] = False,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Renew the first page each 2 s, on a terminal, until q."),
    ] = False,
) -> None:
    """List runs, the newest first.

    With --at as they were at that time. QUERY has words such as state:failed,timeout kind:review
    -tag:test worker:w7 key:A-17 error:E-1 age:>2h cost:>0.5 attempts:>1 since:24h until:1h, or the
    beginning of a run's id.
    """
    names = [name for text in states or [] for name in text.split(",")] or None
    options = RunOptions(names, kind, worker, tag, key)
    bounds = PageBounds(before, after, since, until)
    now_and_whole = at is None and bounds == PageBounds()
    if count and not now_and_whole:
        raise Misuse("--count", "counts all the runs as they are now, without times and cursors")
    if watch and (count or not now_and_whole or not has_screen()):
        raise Misuse("--watch", "needs a terminal, and no times, cursors or --count")
    if query is not None:
        _without_options(options, at=at, count=count, times=since is not None or until is not None)
    if watch:
        await _watch(session, query, options, limit)
    elif query is not None:
        await _search(session, query, bounds, limit)
    elif count:
        async with session.ledger() as ledger:
            _write_counts(session.out, await count_runs(ledger, options))
    else:
        await _list(session, options, bounds, limit, at)


async def _list(
    session: Session, options: RunOptions, bounds: PageBounds, limit: int, at: str | None
) -> None:
    async with session.ledger() as ledger:
        point = None if at is None else instant("--at", at)
        first, last = bounds.times()
        older_than, newer_than = await bounds.cursors(ledger)
        page = await ledger.runs(
            **options.arguments(),
            before=older_than,
            after=newer_than,
            since=first,
            until=last,
            limit=limit,
            at=point,
        )
    if session.as_json:
        for run in page:
            session.out.json(run)
    elif page:
        _write(session.out, page, point or datetime.now(UTC))
    else:
        filtered = options != RunOptions() or bounds != PageBounds() or at is not None
        session.out.talk("no such runs" if filtered else "no runs yet: runfold submit KIND")
    _tell_of_more(session, page, bounds)


def _tell_of_more(session: Session, page: Page, bounds: PageBounds) -> None:
    forward = bounds.after is not None and bounds.before is None
    cursor = page.newer if forward else page.older
    onward = f"--after {cursor}" if forward else f"--before {cursor}"
    if page.examined is not None:
        session.out.talk(f"looked through {number_of(page.examined, 'run')}; go on: {onward}")
    elif cursor is not None:
        order = "newer ones" if forward else "more"
        session.out.talk(f"there are {order}: {onward}, or a larger --limit")


@dataclass(frozen=True, slots=True)
class PageBounds:
    """Where a page of runs lies: beside which run, and between which times."""

    before: str | None = None
    after: str | None = None
    since: str | None = None
    until: str | None = None

    async def cursors(self, ledger: Ledger) -> tuple[UUID | None, UUID | None]:
        """Return the runs before and after which the page lies, by the digits of their ids."""
        before = None if self.before is None else await find_run(ledger, self.before)
        return before, None if self.after is None else await find_run(ledger, self.after)

    def times(self) -> tuple[datetime | None, datetime | None]:
        """Return the times since and until which the runs were submitted."""
        since = None if self.since is None else instant("--since", self.since)
        return since, None if self.until is None else instant("--until", self.until)


def _without_options(options: RunOptions, *, at: str | None, count: bool, times: bool) -> None:
    if options != RunOptions() or at is not None or count or times:
        raise Misuse(
            "QUERY",
            "says it all: write state:failed for --state failed, since:24h for --since; no --at, "
            "--count",
        )


async def _watch(session: Session, query: str | None, options: RunOptions, limit: int) -> None:
    async with session.ledger() as ledger:

        async def draw(width: int, height: int) -> Sequence[Text]:
            most = min(limit, height)
            if query is not None:
                listed = await ledger.search(query, limit=most)
            else:
                listed = await ledger.runs(**options.arguments(), limit=most)
            now = datetime.now(UTC)
            cells = [[clean(cell) for cell in row(run, now)] for run in listed]
            return list(table_lines(TITLES, cells, [COLOURS.get(r.state) for r in listed], width))

        await renew(draw, WATCH_SECONDS)


async def _search(session: Session, query: str, bounds: PageBounds, limit: int) -> None:
    async with session.ledger() as ledger:
        before, after = await bounds.cursors(ledger)
        page = await ledger.search(query, before=before, after=after, limit=limit)
    if session.as_json:
        for run in page:
            session.out.json(run)
    elif page:
        _write(session.out, page, datetime.now(UTC))
    else:
        session.out.talk("no such runs")
    _tell_of_more(session, page, bounds)


def _write_counts(out: Output, counts: Mapping[str, int]) -> None:
    total = sum(counts.values())
    if out.as_json:
        out.json({"total": total, "states": counts})
        return
    for state, number in counts.items():
        out.line(Text(f"{state:<17}{number:>12,}", style=COLOURS.get(state, "")))
    out.line(f"{'total':<17}{total:>12,}")


def _write(out: Output, listed: Sequence[Run], now: datetime) -> None:
    out.table(TITLES, [row(run, now) for run in listed], [COLOURS.get(run.state) for run in listed])


def row(run: Run, now: datetime) -> tuple[str, ...]:
    """Return a run as one row of the table."""
    return (
        str(run.run_id),
        run.kind,
        run.state,
        f"{run.attempt_count}/{run.max_attempts}",
        span(now - run.created_at),
        run.worker_id or EMPTY,
        money(run.cost_usd),
        run.error_code or EMPTY,
        run.key or EMPTY,
        ",".join(run.tags) or EMPTY,
        EMPTY if run.input is None else compact(run.input, _INPUT),
    )
