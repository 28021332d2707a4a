"""The API of a plain handler, in its thread: the calls of Context, each until its end."""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
from collections.abc import Callable, Coroutine, Sequence
from datetime import timedelta
from typing import Any, Literal, ParamSpec, TypeVar, Unpack, overload

from runfold.ledger import State
from runfold.ledger.errors import InvalidValue
from runfold.ledger.operations.signal import wait_name
from runfold.workers.facts import Facts
from runfold.workers.journal.approvals import ApprovalOptions, Decision, Lapsed, OnTimeout
from runfold.workers.journal.fanout import ChildOptions
from runfold.workers.journal.journal import Journal

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")


class BlockingContext(Facts):
    """The run that a plain handler works on, in a thread; steps and tools run in that thread.

    Nothing stops a thread from outside: a long computation should look at `cancelled` now and then;
    every other call ends the attempt by itself when it has to end.
    """

    def __init__(self, journal: Journal) -> None:
        super().__init__(journal)
        self._loop = asyncio.get_running_loop()
        self._thread: int | None = None
        self._home = os.getpid()
        self._tool = threading.Lock()

    def enter(self) -> None:
        """Mark this thread as the handler's own."""
        self._thread = threading.get_ident()

    def step(self, name: str, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As Context.step."""
        _check_plain("step", name, fn)
        step = self._done(self._journal.begin("step", name, fn, beside=self._is_beside()))
        if not step.is_answered:
            with step.answering(self._recorder.rules) as take:
                take(fn(*args, **kwargs))
            self._done(self._journal.record(step))
        result: T = step.result()
        return result

    def tool(self, name: str, fn: Callable[..., Any] | None, *args: Any, park: bool = False) -> Any:
        """As Context.tool."""
        _check_plain("tool", name, fn)
        tool = self._done(
            self._journal.begin("tool", name, None if park else fn, beside=self._is_beside())
        )
        if tool.is_answered:
            return tool.result()
        with self._tool:  # one at a time: a run waits for one tool
            if park or fn is None:
                started = None
                with tool.answering(self._recorder.rules):
                    started = None if fn is None else fn(*args)
                if tool.error is None:
                    self._done(self._tools.park_until_answered(tool, args, started))
            self._done(self._tools.request(tool, args))
            if tool.error is None and fn is not None:
                with tool.answering(self._recorder.rules) as take:
                    take(fn(*args))
            self._done(self._tools.respond(tool))
        return tool.result()

    @overload
    def approval(
        self, prompt: str, *, on_timeout: OnTimeout = ..., **options: Unpack[ApprovalOptions]
    ) -> Decision: ...
    @overload
    def approval(
        self, prompt: str, *, on_timeout: Literal["lapsed"], **options: Unpack[ApprovalOptions]
    ) -> Decision | Lapsed: ...
    def approval(
        self,
        prompt: str,
        *,
        show: Any = None,
        name: str = "approval",
        timeout: float | timedelta | None = None,
        on_timeout: State | str = State.CANCELLED,
        other_person: bool = False,
        role: str | None = None,
        approvals: int = 1,
    ) -> Decision | Lapsed:
        """As Context.approval."""
        call = self._done(self._journal.begin("approval", name, None, beside=self._is_beside()))
        return self._done(
            self._approvals.decision(
                call, prompt, show=show, other_person=other_person, role=role,
                approvals=approvals, timeout=timeout, on_timeout=on_timeout
            )
        )  # fmt: skip

    def sleep(self, duration: float | timedelta, *, name: str = "sleep") -> None:
        """As Context.sleep."""
        called = self._done(self._journal.begin("step", name, None, beside=self._is_beside()))
        self._done(self._waits.sleep(called, duration))

    def wait_for(self, name: str, *, timeout: float | timedelta | None = None) -> Any:
        """As Context.wait_for."""
        called = self._done(
            self._journal.begin("tool", wait_name(name), None, beside=self._is_beside())
        )
        return self._done(self._waits.signal(called, name, timeout))

    def child(
        self,
        kind: str,
        input: Any = None,  # noqa: A002  the field's own word
        **options: Unpack[ChildOptions],
    ) -> Any:
        """As Context.child."""
        [output] = self.children(kind, [input], **options)
        return output

    def children(
        self, kind: str, inputs: Sequence[Any], **options: Unpack[ChildOptions]
    ) -> list[Any]:
        """As Context.children."""
        return self._done(self._fanout.children(kind, inputs, beside=self._is_beside(), **options))

    def note(self, text: object) -> None:
        """As Context.note."""
        self._done(self._journal.note(text))

    def heartbeat(self, detail: object = None) -> None:
        """As Context.heartbeat."""
        if detail is not None:
            self.note(detail)
        self._recorder.heart.beat_soon()

    def _done(self, call: Coroutine[Any, Any, R]) -> R:
        if os.getpid() != self._home:  # its loop does not run there, and would never answer
            call.close()
            raise RuntimeError("a process that a handler forked cannot record anything for its run")
        return asyncio.run_coroutine_threadsafe(call, self._loop).result()

    def _is_beside(self) -> bool:
        return threading.get_ident() != self._thread


def _check_plain(call: str, name: str, fn: Callable[..., Any] | None) -> None:
    if inspect.iscoroutinefunction(fn):
        raise InvalidValue(
            call,
            name,
            "has an async function, in a plain handler: make the handler async, "
            "or the function plain",
        )
