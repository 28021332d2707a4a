"""`runfold drift`: where the stored state is not the fold of the events, and its repair."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any, Final
from uuid import UUID

import typer

from runfold.console.cli.kit.exits import INTEGRITY, OK
from runfold.console.cli.kit.options import Actor, command, program
from runfold.console.cli.kit.output import Output
from runfold.console.cli.kit.plain import clean
from runfold.console.cli.kit.progress import Progress, progress
from runfold.console.cli.kit.session import Session
from runfold.console.cli.kit.values import duration
from runfold.ledger import Ledger
from runfold.ledger.content import check_duration, check_int
from runfold.ledger.errors import InvalidValue
from runfold.projections.state.drift import Drift, check, sample
from runfold.projections.state.drift import repair as make_right
from runfold.workers.duties.drift_sampler import Sampler

REPAIRED_AT_ONCE: Final = 500


app: Final = program()


@command(app, "drift")
async def drift(
    session: Session,
    *,
    sample: Annotated[
        int | None,
        typer.Option("--sample", metavar="N", help="Only about this many runs; else every run."),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on with samples until Ctrl-C.")
    ] = False,
    every: Annotated[
        str, typer.Option("--every", metavar="TIME", help="With --watch: a sample this often.")
    ] = "10s",
    repair: Annotated[
        bool, typer.Option("--repair", help="Make what is wrong the fold of its events; recorded.")
    ] = False,
    actor: Actor = None,
    reason: Annotated[
        str | None,
        typer.Option("--reason", metavar="TEXT", help="Why it is repaired; needed for it."),
    ] = None,
) -> int:
    """Compare the state of every run with the fold of its events; name the columns that differ."""
    if repair and (reason is None or watch):
        raise InvalidValue(
            "--repair", repair, "takes a --reason, which is recorded, and no --watch"
        )
    seconds = check_duration("--every", duration("--every", every), positive=True).total_seconds()
    size = None if sample is None else check_int("--sample", sample, least=1, most=10_000)
    count = 0
    batch: list[UUID] = []
    async with session.ledger() as ledger:
        if watch:
            await _watch(session.out, ledger, seconds, size or 200)

        async def mend() -> None:

            await make_right(
                ledger.pool,
                ledger.project_id,
                sorted(batch),
                actor=actor or ledger.actor,
                reason=reason or "",
            )
            batch.clear()

        with progress("comparing", "events", shown=not session.as_json) as told:
            async for found in _found(ledger, size, told):
                _write(session.out, found)
                count += 1
                batch.append(found.run_id)
                if repair and len(batch) >= REPAIRED_AT_ONCE:
                    await mend()
        if repair and batch:
            await mend()
    what = (
        f"{count:,} {'run differs' if count == 1 else 'runs differ'}"
        if count
        else "nothing differs"
    )
    session.out.talk(f"{what}{'; repaired' if count and repair else ''}")
    return OK if repair or not count else INTEGRITY


async def _watch(out: Output, ledger: Ledger, every: float, size: int) -> None:

    sampler = Sampler(ledger, every=every, size=size)
    out.talk(
        f"comparing {size} runs of project {ledger.project_id} every {every:g} s; Ctrl-C ends it"
    )
    await sampler.run()


async def _found(ledger: Ledger, size: int | None, told: Progress | None) -> AsyncIterator[Drift]:

    if size is None:
        async for one in check(ledger.pool, ledger.project_id, told):
            yield one
        return
    _, drifted = await sample(ledger.pool, ledger.project_id, size)
    for one in drifted:
        yield one


def _write(out: Output, found: Drift) -> None:
    if out.as_json:
        columns = {
            name: {"expected": want, "stored": have} for name, (want, have) in found.columns.items()
        }
        out.json(
            {
                "run_id": found.run_id,
                "expected": found.expected,
                "stored": found.stored,
                "columns": columns,
            }
        )
        return
    if not (found.stored and found.expected):
        out.line(f"{found.run_id}  {found}")
        return
    for name, (want, have) in found.columns.items():
        out.line(f"{found.run_id}  {name:<20} expected {_cell(want)}  stored {_cell(have)}")


def _cell(value: Any) -> str:
    return "-" if value is None else clean(value)
