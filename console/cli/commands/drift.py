"""`runfold drift`: where the stored state is not the fold of the events, and its repair."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from runfold.console.cli.kit.exits import INTEGRITY, OK
from runfold.console.cli.kit.options import Actor, command, program
from runfold.console.cli.kit.output import Output
from runfold.console.cli.kit.progress import progress
from runfold.console.cli.kit.rights import check
from runfold.console.cli.kit.session import Session
from runfold.console.shared.plain import number_of
from runfold.console.shared.values import Misuse, duration
from runfold.ledger import Ledger
from runfold.ledger.proof.fold import Drift
from runfold.ledger.reading.tag_checks import WrongTag, hidden_tags, invented_tags
from runfold.ledger.validation import check_int, check_seconds
from runfold.projections.state import drift as comparing
from runfold.projections.state.repair import repair as repair_runs
from runfold.projections.state.tag_repair import repair_tags
from runfold.workers.duties.drift_sampler import Sampler

REPAIRED_AT_ONCE: Final = 500
_WATCHED_RUNS: Final = 200

app: Final = program()


@command(app, "drift", rights="read | audit")
async def drift(
    session: Session,
    *,
    sample: Annotated[
        int | None,
        typer.Option("--sample", metavar="N", help="Only about this many runs; else every run."),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Compare samples again and again, until Ctrl-C.")
    ] = False,
    every: Annotated[
        str, typer.Option("--every", metavar="TIME", help="With --watch: a sample this often.")
    ] = "10s",
    repair: Annotated[
        bool, typer.Option("--repair", help="Replace wrong rows by the fold; recorded.")
    ] = False,
    actor: Actor = None,
    reason: Annotated[
        str | None,
        typer.Option("--reason", metavar="TEXT", help="Why you repair; --repair needs it."),
    ] = None,
) -> int:
    """Compare stored states with the fold of their events.

    Lists by tag are compared with the states, too, but not by a sample. Prints the columns that
    differ, a run at a time. Exit code 7 if anything differs.
    """
    if repair and reason is None:
        raise Misuse("--reason", "--repair needs a reason, which is recorded")
    if repair and watch:
        raise Misuse("--watch", "cannot be combined with --repair")
    seconds = check_seconds("--every", duration("--every", every), positive=True)
    size = None if sample is None else check_int("--sample", sample, least=1, most=10_000)
    async with session.ledger() as ledger:
        if repair:
            await check(ledger.pool, "owner")
        if watch:
            await _watch(session.out, ledger, seconds, size or _WATCHED_RUNS)
        repairs = _Repairs(ledger, actor or ledger.actor, reason or "") if repair else None
        count, compared = await _compare(session, ledger, size, repairs)
        # After the states, by which they are repaired.
        tags = 0 if size is not None else await _compare_tags(session.out, ledger, repairs)
    _summarize(session.out, count, compared, tags, repaired=repair)
    return OK if repair or not count + tags else INTEGRITY


class _Repairs:
    """Repairs of drifted runs, in batches."""

    def __init__(self, ledger: Ledger, actor: str, reason: str) -> None:
        self._ledger, self._actor, self._reason = ledger, actor, reason
        self._batch: list[Drift] = []
        self._tags: list[WrongTag] = []

    async def add(self, drifted: Drift) -> None:
        self._batch.append(drifted)
        if len(self._batch) >= REPAIRED_AT_ONCE:
            await self.flush()

    async def flush(self) -> None:
        if not self._batch:
            return
        await repair_runs(
            self._ledger,
            sorted(drifted.run_id for drifted in self._batch),
            actor=self._actor,
            reason=self._reason,
        )
        self._batch.clear()

    async def add_tag(self, wrong: WrongTag) -> None:
        self._tags.append(wrong)
        if len(self._tags) >= REPAIRED_AT_ONCE:
            await self.flush_tags()

    async def flush_tags(self) -> None:
        if self._tags:
            await repair_tags(self._ledger, self._tags, actor=self._actor, reason=self._reason)
            self._tags.clear()


async def _compare(
    session: Session, ledger: Ledger, size: int | None, repairs: _Repairs | None
) -> tuple[int, int]:
    """Print the runs that differ and repair them if asked; return how many, of how many."""
    count = 0
    if size is not None:
        compared, sampled = await comparing.sample(ledger, size)
        for drifted in sampled:
            count += 1
            await _found(session.out, drifted, repairs)
    else:
        with progress("comparing", "runs", shown=not session.as_json) as advance:
            comparison = comparing.check(ledger, advance)
            async for drifted in comparison:
                await _found(session.out, drifted, repairs)
        count, compared = comparison.differ, comparison.runs
    if repairs is not None:
        await repairs.flush()
    return count, compared


async def _compare_tags(out: Output, ledger: Ledger, repairs: _Repairs | None) -> int:
    """Print what is wrong in the lists by tag and repair it if asked; return how many entries."""
    count = 0
    for find in (hidden_tags, invented_tags):
        async for wrong in find(ledger.pool, ledger.project_id):
            count += 1
            if out.as_json:
                out.json({"run_id": wrong.run_id, "tag": wrong.tag, "is_listed": wrong.is_listed})
            else:
                out.line(f"{wrong.run_id}  {wrong}")
            if repairs is not None:
                await repairs.add_tag(wrong)
        if repairs is not None:
            await repairs.flush_tags()
    return count


async def _found(out: Output, drifted: Drift, repairs: _Repairs | None) -> None:
    _write(out, drifted)
    if repairs is not None:
        await repairs.add(drifted)


async def _watch(out: Output, ledger: Ledger, every: float, size: int) -> None:
    out.talk(
        f"comparing {number_of(size, 'run')} of project {ledger.project_id} every {every:g} s; "
        "Ctrl-C ends it"
    )
    await Sampler(ledger, every=every, size=size).run()


def _write(out: Output, drifted: Drift) -> None:
    if out.as_json:
        out.json(_facts(drifted))
        return
    if not (drifted.stored and drifted.expected):
        out.line(f"{drifted.run_id}  {drifted}")
        return
    for name, (expected, stored) in drifted.columns.items():
        out.line(f"{drifted.run_id}  {name:<20} expected {_cell(expected)}  stored {_cell(stored)}")


def _facts(drifted: Drift) -> dict[str, Any]:
    return {
        "run_id": drifted.run_id,
        "expected": drifted.expected,
        "stored": drifted.stored,
        "columns": {
            name: {"expected": expected, "stored": stored}
            for name, (expected, stored) in drifted.columns.items()
        },
    }


def _cell(value: Any) -> str:
    return "-" if value is None else value


def _summarize(out: Output, count: int, compared: int, tags: int, *, repaired: bool) -> None:
    if out.as_json:
        facts = {"runs": compared, "differ": count, "tags": tags, "repaired": repaired}
        out.json({"ok": not count + tags, **facts})
        return
    runs = number_of(compared, "run")
    if not count + tags:
        out.talk(f"nothing differs in {runs}")
        return
    noun = "run differs" if count == 1 else "runs differ"
    listed = f"; {tags:,} wrong in lists by tag" if tags else ""
    out.talk(f"{count:,} {noun} of {compared:,}{listed}{'; repaired' if repaired else ''}")
