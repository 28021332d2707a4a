"""Run ended runs again: a new run with the same input, linked to the old one on both sides."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Final, TypeVar
from uuid import UUID

from runfold.ledger import Ledger, Run, Submit
from runfold.ledger.archive.record import Archive, detached
from runfold.ledger.errors import DuplicateKey, LedgerError
from runfold.ledger.events import NoteAdded
from runfold.ledger.payload import Unreadable
from runfold.ledger.reading.run_filter import RunFilter
from runfold.ledger.reading.search import listed

NOTE: Final = "run.rerun"
"""The name of the notes that link an old run and its rerun."""

RERUN: Final = "rerun:"
_BATCH: Final = 500
_NOTED: Final = 20
"""Pairs of runs that get their notes at a time."""
T = TypeVar("T")


class NotRerunnable(LedgerError):
    """A run has not ended, its input is erased, or its month is detached; nothing was submitted."""

    def __init__(self, run_id: UUID, why: str) -> None:
        self.run_id, self.why = run_id, why
        super().__init__(f"run {run_id} cannot be rerun: {why}")


@dataclass(frozen=True, slots=True)
class Rerun:
    """A new run and the run that it repeats; `created` is False if that was rerun before."""

    run_id: UUID
    rerun_of: UUID
    created: bool


def rerun_key(run_id: UUID) -> str:
    """Return the key of a run's rerun: a run has one, and the key names the old run for good."""
    return f"{RERUN}{run_id}"


def rerun_of(key: str | None) -> str | None:
    """Return the id of the run that the run of a key repeats; None if it repeats none."""
    key = key or ""
    return key.removeprefix(RERUN) if key.startswith(RERUN) else None


async def rerun(
    ledger: Ledger, runs: Sequence[Run], *, actor: str, reason: str | None
) -> list[Rerun]:
    """Submit a new run for each ended run: same kind, input, priority, attempts and tags.

    Both runs get a note that names the other. A run that was rerun before yields its rerun.
    Raises NotRerunnable before anything is submitted.
    """
    archived = await detached(ledger.pool)
    for run in runs:
        problem = await _problem(ledger, run, archived)
        if problem is not None:
            raise problem
    done: list[Rerun] = []
    for batch in _batches(runs):
        done += await _submitted(ledger, batch, actor, reason)
    return done


async def rerun_each(
    ledger: Ledger, runs: Sequence[Run], *, actor: str, reason: str | None
) -> dict[UUID, Rerun | NotRerunnable]:
    """Rerun at most 500 runs; return the rerun of each, or why it cannot be rerun."""
    archived = await detached(ledger.pool)
    problems = {run.run_id: await _problem(ledger, run, archived) for run in runs}
    chosen = [run for run in runs if problems[run.run_id] is None]
    done = await _submitted(ledger, chosen, actor, reason) if chosen else []
    reruns = {each.rerun_of: each for each in done}
    return {run_id: problem or reruns[run_id] for run_id, problem in problems.items()}


async def _problem(ledger: Ledger, run: Run, archived: Sequence[Archive]) -> NotRerunnable | None:
    """Return why a run cannot be run again; None if it can."""
    if not run.is_terminal:
        return NotRerunnable(run.run_id, f"it is {run.state}, and only an ended run can be")
    for month in archived:
        if month.first <= run.run_id < month.beyond:  # its events take no note of the rerun
            return NotRerunnable(
                run.run_id,
                f"its month is detached: `runfold archive attach {month.month}` brings it back",
            )
    if isinstance(run.input, Unreadable):
        return NotRerunnable(run.run_id, f"its input {run.input}")
    if run.input is None:
        first = (await ledger.history(run.run_id, limit=1))[0]
        if getattr(first, "erased", False):
            return NotRerunnable(run.run_id, "its input is erased")
    return None


async def _submitted(
    ledger: Ledger, runs: Sequence[Run], actor: str, reason: str | None
) -> list[Rerun]:
    reruns = await _rerun_before(ledger, runs)
    first = [run for run in runs if run.run_id not in reruns]
    submissions = await ledger.submit_many(map(_again, first), actor=actor)
    for run, new in zip(first, submissions, strict=True):
        reruns[run.run_id] = Rerun(new.run_id, run.run_id, new.created)
    done = [reruns[run.run_id] for run in runs]
    for some in _batches(done, _NOTED):
        links = (_link(ledger, each.rerun_of, each.run_id, actor, reason) for each in some)
        await asyncio.gather(*links)
    return done


async def _rerun_before(ledger: Ledger, runs: Sequence[Run]) -> dict[UUID, Rerun]:
    """Return the reruns that are there: to submit them again could meet another redaction."""
    of = {rerun_key(run.run_id): run.run_id for run in runs}
    chosen = RunFilter(keys=list(of))
    found = await listed(ledger.pool, ledger.project_id, chosen, limit=len(of), content=False)
    return {of[new.key]: Rerun(new.run_id, of[new.key], created=False) for new in found if new.key}


def _again(run: Run) -> Submit:
    return Submit(
        kind=run.kind,
        input=run.input,
        key=rerun_key(run.run_id),
        priority=run.priority,
        max_attempts=run.max_attempts,
        tags=run.tags,
    )


async def _link(ledger: Ledger, old: UUID, new: UUID, actor: str, reason: str | None) -> None:
    why = f": {reason}" if reason else ""
    for run_id, text in ((old, f"rerun as {new}{why}"), (new, f"rerun of {old}{why}")):
        # With a key, so that a call repeated after an interruption adds what is missing.
        note = NoteAdded(name=NOTE, text=text)
        with suppress(DuplicateKey):  # the run has the note, with the reason of the first call
            await ledger.append(run_id, note, actor=actor, key=f"{rerun_key(old)}:{run_id}")


def _batches(items: Sequence[T], size: int = _BATCH) -> Iterator[list[T]]:
    remaining = iter(items)
    while batch := list(islice(remaining, size)):
        yield batch
