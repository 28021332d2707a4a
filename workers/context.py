"""The API of an async handler: steps and tools recorded once, approvals, waits, costs, notes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import cached_property
from typing import Any, Literal, ParamSpec, TypeVar, Unpack, overload

from runfold.ledger import State
from runfold.ledger.operations.signal import wait_name
from runfold.workers.errors import SelfCancelled
from runfold.workers.facts import Facts
from runfold.workers.journal.approvals import ApprovalOptions, Decision, Lapsed, OnTimeout
from runfold.workers.journal.call import GIVEN_UP, Call, outcome
from runfold.workers.journal.fanout import ChildOptions
from runfold.workers.journal.journal import Journal

P = ParamSpec("P")
T = TypeVar("T")


class Context(Facts):
    """The run that an async handler works on; recorded results come back from the history.

    Steps and tools run at least once, their results are recorded once. A call may raise what ends
    the attempt (`runfold.workers.errors.Unwind`), which no handler should catch.
    """

    def __init__(self, journal: Journal) -> None:
        super().__init__(journal)
        self._task = asyncio.current_task()

    @overload
    async def step(
        self, name: str, fn: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> T: ...
    @overload
    async def step(self, name: str, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T: ...
    async def step(self, name: str, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function, async or plain (in a thread), and record its result once.

        The result comes as the type that the function declares, as JSON without one. Raises
        StepError when it raises.
        """
        step = await self._journal.begin("step", name, fn, beside=self._is_beside())
        if not step.is_answered:
            with step.answering(self._recorder.rules) as take:
                async with self._interruptible(step, self._journal.record):
                    take(await outcome(fn, *args, **kwargs))
            await self._journal.record(step)
        elif step.is_given_up:
            await self._journal.given_up_again()
        return step.result()

    async def tool(
        self, name: str, fn: Callable[..., Any] | None, *args: Any, park: bool = False
    ) -> Any:
        """Call an outside tool; meanwhile the run is waiting_tool. `key`: its idempotency key.

        Held by default: `fn` gives the answer. With `park`, `fn` (or None) only asks; the lease is
        given back, and the answer comes by `ledger.answer(run_id, output)`. Raises ToolError.
        """
        tool = await self._journal.begin(
            "tool", name, None if park else fn, beside=self._is_beside()
        )
        if tool.is_given_up:
            await self._journal.given_up_again()
        if tool.is_answered:
            return tool.result()
        await self._have_turn(tool)
        try:
            return await self._make(tool, fn, args, park=park or fn is None)
        finally:
            self._turn.release()

    async def _have_turn(self, tool: Call) -> None:
        """Wait for the tools before this one: a run waits for one at a time.

        A tool that is given up meanwhile has its turn all the same, to be recorded as such.
        """
        while True:
            try:
                await self._turn.acquire()
            except asyncio.CancelledError:
                if self.cancelled or tool.beside:
                    raise
                tool.error = dict(GIVEN_UP)
            else:
                return

    async def _make(
        self, tool: Call, fn: Callable[..., Any] | None, args: Sequence[Any], *, park: bool
    ) -> Any:
        journal = self._journal
        if tool.is_given_up:
            await self._tools.request(tool, args)
            await self._tools.respond(tool)
            raise asyncio.CancelledError
        if park:
            await self._ask(tool, fn, args)
        async with self._interruptible(tool, self._tools.respond):
            await self._tools.request(tool, args, gives_way=True)
        if tool.error is None and fn is not None:
            with tool.answering(journal.recorder.rules) as take:
                async with self._interruptible(tool, self._tools.respond):
                    take(await outcome(fn, *args))
        await self._tools.respond(tool)
        return tool.result()

    async def _ask(self, tool: Call, fn: Callable[..., Any] | None, args: Sequence[Any]) -> None:
        """Park the run for a tool that was asked; return if asking failed."""

        async def give_up(tool: Call) -> None:
            await self._tools.request(tool, args)
            await self._tools.respond(tool)

        started = None
        with tool.answering(self._recorder.rules):
            async with self._interruptible(tool, give_up):
                started = None if fn is None else await outcome(fn, *args)
        if tool.error is None:
            await self._tools.park_until_answered(tool, args, started)

    @asynccontextmanager
    async def _interruptible(
        self, called: Call, write: Callable[[Call], Awaitable[None]]
    ) -> AsyncIterator[None]:
        """Record a call that the handler cancels in this block, unless the attempt has to end."""
        try:
            yield
        except asyncio.CancelledError as error:
            if self.cancelled:
                self._journal.keep_spending(called)
                raise
            task = asyncio.current_task()
            if task is None or not task.cancelling():  # it was raised by the function itself
                raise SelfCancelled("the function itself raised CancelledError") from error
            called.error = dict(GIVEN_UP)
            await write(called)
            raise

    @overload
    async def approval(
        self, prompt: str, *, on_timeout: OnTimeout = ..., **options: Unpack[ApprovalOptions]
    ) -> Decision: ...
    @overload
    async def approval(
        self, prompt: str, *, on_timeout: Literal["lapsed"], **options: Unpack[ApprovalOptions]
    ) -> Decision | Lapsed: ...
    async def approval(
        self,
        prompt: str,
        *,
        show: Any = None,
        name: str = "approval",
        timeout: float | timedelta | None = None,  # noqa: ASYNC109  the run's time, not the call's
        on_timeout: State | str = State.CANCELLED,
        other_person: bool = False,
        role: str | None = None,
        approvals: int = 1,
    ) -> Decision | Lapsed:
        """Park the run until a person decides: a yes goes on from here, a no cancels the run.

        A decision holds for exactly what is shown, by its SHA-256: show only what is recorded.
        `other_person`: the submitter may not decide. `role`: only who has it may; as
        long as nobody has it, the run waits. `approvals`: how many different persons must say yes,
        up to 10. `timeout`: seconds, then the run ends as `on_timeout`,
        cancelled or timeout; with "lapsed" the call returns a Lapsed, which is not an approval.
        """
        call = await self._journal.begin("approval", name, None, beside=self._is_beside())
        return await self._approvals.decision(
            call,
            prompt,
            show=show,
            other_person=other_person,
            role=role,
            approvals=approvals,
            timeout=timeout,
            on_timeout=on_timeout,
        )

    async def sleep(self, duration: float | timedelta, *, name: str = "sleep") -> None:
        """Sleep by the database's clock; a long sleep gives the run back uncharged."""
        called = await self._journal.begin("step", name, None, beside=self._is_beside())
        if called.is_given_up:
            await self._journal.given_up_again()
        async with self._interruptible(called, self._journal.give_up):
            await self._waits.sleep(called, duration)

    async def wait_for(self, name: str, *, timeout: float | timedelta | None = None) -> Any:  # noqa: ASYNC109  the run's time
        """Return the next signal's value, parked until `ledger.signal(run_id, name, value)`.

        A signal that came before the wait is kept; each is given once, in the order in which they
        came. `timeout`: seconds, then a reaper ends the wait and it raises WaitTimedOut; a signal
        that comes later is kept for the next wait.
        """
        called = await self._journal.begin("tool", wait_name(name), None, beside=self._is_beside())
        return await self._waits.signal(called, name, timeout)

    async def child(
        self,
        kind: str,
        input: Any = None,  # noqa: A002  the field's own word
        **options: Unpack[ChildOptions],
    ) -> Any:
        """Submit a child run, park, and return its output when it has ended. Raises ChildFailed.

        The child is submitted once, whatever happens to this run. `priority`, `delay`,
        `max_attempts`, `deadline` and `tags` are as of `Ledger.submit`.
        """
        [output] = await self.children(kind, [input], **options)
        return output

    async def children(
        self, kind: str, inputs: Sequence[Any], **options: Unpack[ChildOptions]
    ) -> list[Any]:
        """Submit a child run for each of up to 10,000 inputs; return their outputs in this order.

        See `child`; ChildFailed is of the first in this order that did not complete.
        """
        return await self._fanout.children(kind, inputs, beside=self._is_beside(), **options)

    async def note(self, text: object) -> None:
        """Add a remark to the history, unless an earlier attempt has added it."""
        await self._journal.note(text)

    async def heartbeat(self, detail: object = None) -> None:
        """Beat at once, with a note of how far the work is; other beats are automatic."""
        if detail is not None:
            await self.note(detail)
        self._recorder.heart.beat_soon()

    @cached_property
    def _turn(self) -> asyncio.Lock:
        return asyncio.Lock()

    def _is_beside(self) -> bool:
        return asyncio.current_task() is not self._task
