"""Children of a run: submitted once, waited for without a slot, and their outcomes recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, TypedDict, Unpack
from uuid import UUID

from pydantic_core import to_json

from runfold.ledger import Run, Submit
from runfold.ledger.errors import DuplicateKey, InvalidValue, LedgerError
from runfold.ledger.lifecycle import TERMINAL, State
from runfold.ledger.operations.columns import MAX_BATCH
from runfold.ledger.payload import PayloadRules
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.reading.permitted import check_may_read
from runfold.workers.errors import ChildFailed, Parked
from runfold.workers.journal.call import MAX_NAME, Call
from runfold.workers.journal.children import answer, outcome_of
from runfold.workers.journal.journal import Journal
from runfold.workers.journal.json_values import as_json
from runfold.workers.journal.tools import Tools

WINDOW: Final = 100
"""Children that are looked at together: the run waits for the last of them that is open."""
_SUBMITTED: Final = """
SELECT key, run_id FROM ledger.command WHERE project_id = $1 AND key = ANY ($2::text[])
"""
_LOOK: Final = "SELECT * FROM ledger.read_runs($1, $2)"
_ID_BYTES: Final = 39
"""A run id in a JSON list, with its quotes and its comma."""


class ChildOptions(TypedDict, total=False):
    """How a child run is submitted, as of `Ledger.submit`."""

    priority: int
    delay: float | timedelta | None
    max_attempts: int
    deadline: datetime | float | timedelta | None
    tags: Sequence[str]


class Fanout:
    """Asks for the children of one attempt, and collects what came of them.

    The outcomes of children that have ended are recorded together, as many as fit a payload: a run
    may have 10,000 children, and its history is read whenever it goes on.
    """

    def __init__(self, journal: Journal, tools: Tools) -> None:
        self._journal, self._tools, self._recorder = journal, tools, journal.recorder
        self._ledger = journal.ledger

    async def children(
        self, kind: str, inputs: Sequence[Any], *, beside: bool, **options: Unpack[ChildOptions]
    ) -> list[Any]:
        """Return the output of a child run with each input; raise ChildFailed at the first without.

        Raises InvalidValue for more than 10,000, and StepError when they cannot be recorded.
        """
        word = _as_word(kind)
        called = await self._journal.begin("step", f"children:{word}", None, beside=beside)
        if not called.is_answered:
            await self._submit(called, kind, inputs, **options)
        if called.error is not None:
            called.result()  # raises it
        children = await self._children(called)
        outputs: list[Any] = []
        while len(outputs) < len(children):
            left = children[len(outputs) :]
            outputs += await self._ended(word, left, beside=beside)
        return outputs

    async def _submit(
        self, called: Call, kind: str, inputs: Sequence[Any], **options: Unpack[ChildOptions]
    ) -> None:
        with self._recorder.asking():
            if len(inputs) > MAX_BATCH:
                remedy = f"at most {MAX_BATCH:,} children in one call: make several calls"
                raise InvalidValue("children", len(inputs), remedy)
            children = [
                Submit(
                    kind=kind,
                    input=as_json("input", input_),
                    key=f"{called.key}/{number}",
                    parent=self._journal.lease.run_id,
                    **options,
                )
                for number, input_ in enumerate(inputs, 1)
            ]
            submit = partial(self._ledger.submit_many, children)
            try:
                submitted = await self._recorder.persist(submit) if children else []
            except DuplicateKey as error:
                remedy = (
                    f"an earlier attempt submitted others, such as {error.run_id}: compute their "
                    "inputs in a step, so that each attempt asks for the same"
                )
                raise InvalidValue("children", kind, remedy) from error
        ids = [child.run_id for child in submitted]
        called.output = _as_result(ids, self._recorder.rules)
        await self._journal.record(called)

    async def _children(self, called: Call) -> list[UUID]:
        if isinstance(called.output, list):
            return [UUID(child) for child in called.output]
        keys = [f"{called.key}/{number}" for number in range(1, called.output["count"] + 1)]
        rows = await self._fetch(_SUBMITTED, keys)
        children = {row["key"]: row["run_id"] for row in rows}
        return [children[key] for key in keys]

    async def _ended(self, word: str, children: Sequence[UUID], *, beside: bool) -> list[Any]:
        """Return the outputs of the first of these children, once they have ended.

        What an earlier attempt did is replayed first: whether it waited, or recorded outcomes.
        """
        runs: list[Run] = []
        waits = False if beside else await self._journal.next_is("tool")
        if waits is None or beside:
            runs = await self._look(children[:WINDOW])
            waits = runs[0].state not in TERMINAL
        if waits:
            await self._wait(word, runs, beside=beside)
            return []
        called = await self._journal.begin("step", f"outputs:{word}", None, beside=beside)
        if not called.is_answered:
            called.output = _outcomes(runs, self._recorder.rules)
            await self._journal.record(called)
        return [_output(outcome) for outcome in called.result()]

    async def _wait(self, word: str, runs: Sequence[Run], *, beside: bool) -> None:
        called = await self._journal.begin("tool", f"child:{word}", None, beside=beside)
        if called.is_answered:
            return
        is_open = [run.run_id for run in runs if run.state not in TERMINAL]
        try:
            await self._tools.park_until_answered(called, {"child": str(is_open[-1])})
        except Parked:
            with suppress(LedgerError):  # it may have ended before anybody could see the wait
                await answer(self._ledger, [self._journal.lease.run_id])
            raise

    async def _look(self, children: Sequence[UUID]) -> list[Run]:
        rows = await self._fetch(_LOOK, children)
        if any(row["state"] == State.COMPLETED and row["output"] is None for row in rows):
            # Without the right every output looks so. While it is missing, the call waits.
            pool, project_id = self._ledger.pool, self._ledger.project_id
            await self._recorder.persist(lambda: check_may_read(pool, project_id))
            rows = await self._fetch(_LOOK, children)
        runs = {row["run_id"]: Run.from_row(row) for row in rows}
        return [runs[child] for child in children]

    async def _fetch(self, sql: str, values: Sequence[Any]) -> Sequence[Mapping[str, Any]]:
        pool, project_id = self._ledger.pool, self._ledger.project_id
        return await self._recorder.persist(lambda: fetch(pool, sql, project_id, values))


def _as_word(kind: str) -> str:
    """Return a kind as part of a call's name: shorter, and without `#`."""
    return str(kind).replace("#", "_")[: MAX_NAME - len("children:")]


def _as_result(children: Sequence[UUID], rules: PayloadRules) -> Any:
    """Return what a step records of children: their ids, or their number if the ids do not fit.

    Their keys follow from the number.
    """
    if len(children) * _ID_BYTES > rules.limit_bytes // 2:
        return {"count": len(children)}
    return [str(child) for child in children]


def _outcomes(runs: Sequence[Run], rules: PayloadRules) -> list[dict[str, Any]]:
    """Return the outcomes of the first runs, up to one that is open or half of a payload."""
    outcomes: list[dict[str, Any]] = []
    size = 0
    for run in runs:
        if run.state not in TERMINAL:
            break
        output, error = outcome_of(run)
        failed = {"child": str(run.run_id), "state": run.state, "error_code": run.error_code}
        outcome = {"output": output} if error is None else failed
        size += len(to_json(outcome))
        if outcomes and size > rules.limit_bytes // 2:
            break
        outcomes.append(outcome)
    return outcomes


def _output(outcome: Mapping[str, Any]) -> Any:
    if "child" in outcome:
        raise ChildFailed(UUID(outcome["child"]), outcome["state"], outcome["error_code"])
    return outcome["output"]
