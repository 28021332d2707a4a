"""Tools of a run: held while their function runs, or parked until somebody answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from runfold.ledger import State, Transition
from runfold.ledger.errors import IllegalTransition, InvalidValue, PayloadTooLarge
from runfold.ledger.lifecycle import HANDLER_FAILED
from runfold.workers.errors import Parked
from runfold.workers.journal.call import Call
from runfold.workers.journal.journal import Journal
from runfold.workers.journal.json_values import as_json


class Tools:
    """Moves the run of one attempt into and out of waiting."""

    def __init__(self, journal: Journal) -> None:
        self._journal, self._recorder = journal, journal.recorder

    async def request(self, tool: Call, args: Any, *, gives_way: bool = False) -> None:
        """Move the run to waiting for a tool, held."""
        with self._recorder.asking():
            await self._recorder.move(
                State.WAITING_TOOL,
                name=tool.name,
                own=not tool.beside,
                gives_way=gives_way,
                key=self._journal.key(tool, "asked"),
                content={
                    "input": _shown(tool, args),
                    "beside": tool.beside or None,
                    "handler_version": self._journal.version_with(tool),
                },
            )

    async def respond(self, tool: Call) -> None:
        """Move the run on with a tool's answer."""
        usd, steps = self._journal.spent(tool)
        facts: dict[str, Any] = {"key": self._journal.key(tool), "cost_usd_delta": usd}
        if tool.error is None:
            try:
                await self._move_on(tool, output=tool.output, step_count_delta=steps + 1, **facts)
            except (InvalidValue, PayloadTooLarge) as error:
                tool.fail(error, self._recorder.rules)
        self._journal.has_result = self._journal.has_result or tool.error is None
        if tool.error is not None:
            facts |= {"error_code": HANDLER_FAILED, "error_detail": tool.error}
            await self._move_on(tool, step_count_delta=steps, **facts)

    async def park_until_answered(
        self, tool: Call, args: Any, started: Any = None, **facts: Any
    ) -> NoReturn:
        """Park the run until somebody answers for a tool; `started`: what asking it returned."""
        with self._recorder.asking():
            content = {"input": _shown(tool, args)}
            output = as_json(f"what asking tool {tool.name!r} returned", started, fallback=repr)
            await self.park(tool, State.WAITING_TOOL, content, output=output, **facts)

    async def park(
        self, called: Call, state: State, content: Mapping[str, Any], **facts: Any
    ) -> NoReturn:
        """Give the run back until the call has its answer, and end the attempt."""
        if called.beside:
            raise InvalidValue(
                called.call,
                called.name,
                "parks the run: ask for it in the handler itself, in no task beside it;"
                " asyncio.wait_for makes a task before Python 3.12, asyncio.timeout makes none",
            )
        usd, steps = self._journal.spent(called)
        command = Transition(
            self._journal.lease,
            state,
            park=True,
            name=called.name,
            key=self._journal.key(called, "asked"),
            cost_usd_delta=usd,
            step_count_delta=steps,
            content={**content, "handler_version": self._journal.version_with(called)},
            **facts,
        )
        try:
            await self._recorder.park(command)
        except BaseException as error:  # where it is on record nevertheless, nothing more is
            self._journal.meter.add(usd, steps)
            if isinstance(error, IllegalTransition):
                remedy = "parks the run, which waits for a tool: await every tool before"
                raise InvalidValue(called.call, called.name, remedy) from error
            raise
        self._recorder.ending = Parked(f"{called.call} {called.name!r}")
        raise self._recorder.ending

    async def _move_on(self, tool: Call, **facts: Any) -> None:
        await self._recorder.move(State.RUNNING, name=tool.name, own=not tool.beside, **facts)


def _shown(tool: Call, value: Any) -> Any:
    return as_json(f"what tool {tool.name!r} is given", value, fallback=repr)
