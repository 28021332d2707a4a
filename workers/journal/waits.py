"""What a handler waits for besides tools and people: a time, a signal, child runs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, TypedDict, Unpack
from uuid import UUID

from runfold.ledger import Run, Submit
from runfold.ledger.errors import InvalidValue, LedgerError, VersionConflict
from runfold.ledger.lifecycle import DEADLINE_PASSED, TERMINAL
from runfold.ledger.operations.columns import MAX_BATCH
from runfold.ledger.operations.signal import kept_signal
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.validation import check_duration
from runfold.workers.errors import Asleep, ChildFailed, Parked, ToolError, WaitTimedOut
from runfold.workers.journal.call import MAX_NAME, Call
from runfold.workers.journal.children import answer, outcome_of
from runfold.workers.journal.journal import Journal
from runfold.workers.journal.json_values import as_json
from runfold.workers.journal.tools import Tools

SLICE_SECONDS: Final = 0.25
_CHILDREN: Final = """
SELECT key, run_id FROM ledger.command WHERE project_id = $1 AND key = ANY ($2::text[])
"""
_ID_BYTES: Final = 39
"""A run id in a JSON list, with its quotes and its comma."""
_NOW: Final = "SELECT ledger.now() AS now"


def called_by(kind: str) -> str:
    """Return a kind as part of a call's name: shorter, and without `#`."""
    return str(kind).replace("#", "_")[: MAX_NAME - len("children:")]


def _as_result(children: Sequence[UUID], limit_bytes: int) -> Any:
    """Return what a step records of children: their ids, or where they do not fit their number.

    Their keys follow from the number.
    """
    if len(children) * _ID_BYTES > limit_bytes // 2:
        return {"count": len(children)}
    return [str(child) for child in children]


class ChildOptions(TypedDict, total=False):
    """How a child run is submitted, as of `Ledger.submit`."""

    priority: int
    delay: float | timedelta | None
    max_attempts: int
    deadline: datetime | float | timedelta | None
    tags: Sequence[str]


class Waits:
    """The waits of one attempt; each gives the run back, so that waiting holds no slot."""

    def __init__(self, journal: Journal, tools: Tools) -> None:
        self._journal, self._tools, self._ledger = journal, tools, journal.ledger

    async def sleep(self, called: Call, duration: float | timedelta) -> None:
        """Record when the sleep began; hold the run for a short rest, else give it back."""
        journal = self._journal
        with journal.recorder.asking():
            seconds = check_duration("seconds", duration).total_seconds()
        if called.earlier is None:
            called.output = {"seconds": seconds}
            await journal.record(called)
        elif not (isinstance(called.output, dict) and called.output.keys() == {"seconds"}):
            journal.recorder.mismatch(str(called.earlier), f"sleep {called.name!r}")
        elif not called.beside and (await journal.replay()).is_replaying:
            return  # what came after it is recorded, so it is over
        else:
            seconds = await self._left(called.earlier.asked.recorded_at, called.output["seconds"])
        if seconds > self._ledger.settings.longest_held_sleep and not called.beside:
            journal.recorder.ending = Asleep(seconds)
            raise journal.recorder.ending
        end = asyncio.get_running_loop().time() + seconds
        while (left := end - asyncio.get_running_loop().time()) > 0:
            journal.recorder.check_open()
            await asyncio.sleep(min(left, SLICE_SECONDS))

    async def _left(self, since: datetime | None, seconds: float) -> float:
        assert since is not None
        [row] = await self._journal.recorder.persist(lambda: fetch(self._ledger.pool, _NOW))
        passed: timedelta = row["now"] - since
        return max(seconds - passed.total_seconds(), 0.0)

    async def signal(self, called: Call, name: str, timeout: float | timedelta | None) -> Any:  # noqa: ASYNC109  the run's time
        """Return the value of the next signal: one that was kept, or the answer to a parked wait.

        Raises WaitTimedOut.
        """
        journal, run_id = self._journal, self._journal.lease.run_id
        while not called.is_answered:
            events = await journal.recorder.persist(lambda: self._ledger.history(run_id))
            if (kept := kept_signal(events, name)) is not None:
                await self._tools.request(called, {"signal": name})
                called.output = kept.value
                await self._tools.respond(called)
                break
            try:
                version = events[-1].version
                await self._tools.park_until_answered(
                    called, {"signal": name}, expected_version=version, wait=timeout
                )
            except VersionConflict:
                continue  # a signal may have come
        if called.error is not None and called.error["type"] == DEADLINE_PASSED:
            raise WaitTimedOut(name)
        return called.result()

    async def submit(
        self, called: Call, kind: str, inputs: Sequence[Any], **options: Unpack[ChildOptions]
    ) -> list[UUID]:
        """Ask for a child with each input, once however often this is repeated; return their ids.

        Raises InvalidValue for more than 10,000, and StepError when they cannot be recorded.
        """
        if not called.is_answered:
            journal = self._journal
            with journal.recorder.asking():
                if len(inputs) > MAX_BATCH:
                    remedy = f"at most {MAX_BATCH:,} children in one call: make several calls"
                    raise InvalidValue("children", len(inputs), remedy)
                children = [
                    Submit(
                        kind=kind,
                        input=as_json("input", input_),
                        key=f"{called.key}/{number}",
                        parent=journal.lease.run_id,
                        **options,
                    )
                    for number, input_ in enumerate(inputs, 1)
                ]
                submit = partial(self._ledger.submit_many, children)
                made = await journal.recorder.persist(submit) if children else []
            called.output = _as_result([child.run_id for child in made], journal.recorder.limit)
            await journal.record(called)
        if called.error is not None:
            called.result()  # raises it
        return await self._children(called)

    async def _children(self, called: Call) -> list[UUID]:
        if isinstance(called.output, list):
            return [UUID(child) for child in called.output]
        keys = [f"{called.key}/{number}" for number in range(1, called.output["count"] + 1)]
        pool, project_id = self._ledger.pool, self._ledger.project_id
        rows = await self._journal.recorder.persist(
            lambda: fetch(pool, _CHILDREN, project_id, keys)
        )
        children = {row["key"]: row["run_id"] for row in rows}
        return [children[key] for key in keys]

    async def child(self, called: Call, child_id: UUID) -> Any:
        """Return an ended child's output; raise ChildFailed when it did not complete."""
        if not called.is_answered:
            journal = self._journal
            child = await self._child(child_id)
            if child.state not in TERMINAL:
                try:
                    await self._tools.park_until_answered(called, {"child": str(child_id)})
                except Parked:
                    with suppress(
                        LedgerError
                    ):  # it may have ended before anybody could see the wait
                        await answer(self._ledger, [journal.lease.run_id])
                    raise
            await self._tools.request(called, {"child": str(child_id)})
            called.output, called.error = outcome_of(child)
            await self._tools.respond(called)
        try:
            return called.result()
        except ToolError as failed:
            ended = await self._child(child_id)
            raise ChildFailed(child_id, ended.state, ended.error_code) from failed

    async def _child(self, child_id: UUID) -> Run:
        return await self._journal.recorder.persist(lambda: self._ledger.get(child_id))
