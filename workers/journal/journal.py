"""Recall and record the calls of one attempt, behind Context and BlockingContext."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

from runfold.ledger import Lease, Ledger, State, Transition, log, names, roles
from runfold.ledger.commands import check_wait_outcome
from runfold.ledger.errors import (
    DatabaseUnavailable,
    InvalidValue,
    LeaseLost,
    NobodyHasRole,
    PayloadTooLarge,
    VersionConflict,
)
from runfold.ledger.events import ApprovalRequested, Event, NoteAdded, StepCompleted, StepFailed
from runfold.ledger.lifecycle import HANDLER_FAILED
from runfold.ledger.operations.decide import shown_sha256
from runfold.ledger.run import Receipt
from runfold.ledger.validation import check_duration
from runfold.workers.errors import HistoryMismatch, Parked, Refused, Stop, Stopped, Unwind
from runfold.workers.journal.call import CURRENT, Call, Meter, Names, adapter_of
from runfold.workers.journal.json_values import recordable
from runfold.workers.journal.replay import CallKind, Recall, Recorded
from runfold.workers.leases.deadline import AGAIN_SECONDS, within

if TYPE_CHECKING:
    from runfold.workers.leases.heart import Heart
    from runfold.workers.leases.writer import Writer

R = TypeVar("R")
FIRST_TOKEN: Final = 2
"""The token of a run that was never leased before, and so has nothing recorded."""
SETTLE_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Decision:
    """A person's yes: who, why, when, and what the person filled in."""

    actor: str
    reason: str | None
    at: datetime | None
    value: Any = None


class Journal:
    """Recalls what earlier attempts of a run recorded, and records this one's calls."""

    def __init__(self, ledger: Ledger, lease: Lease, writer: Writer, heart: Heart) -> None:
        self.ledger, self.lease, self.heart = ledger, lease, heart
        self.meter = Meter()
        self.ending: Unwind | None = None
        """What has ended the attempt from within, whatever the handler makes of it."""
        self.stopped: Stop | None = None
        """Why the attempt has to end, as the worker sees it."""
        self._writer = writer
        self._names, self._notes = Names(), 0
        self._recall: Recall | None = None
        self._recalling = asyncio.Lock()
        self._version = lease.token
        self._open_tool: str | None = None
        """The tool that the run waits for now, held."""

    @property
    def limit(self) -> int:
        """The payload limit in bytes."""
        return self.ledger.settings.payload_limit_bytes

    @property
    def log(self) -> Any:
        """A structlog logger bound to the run, its attempt and its token."""
        lease = self.lease
        return log.logger(
            project_id=self.ledger.project_id, run_id=str(lease.run_id), kind=lease.kind,
            attempt_count=lease.attempt,
            token=lease.token, worker_id=lease.worker_id, trace_id=lease.run_id.hex,
        )  # fmt: skip

    async def begin(
        self, call: CallKind, name: str, fn: Callable[..., Any] | None, *, beside: bool
    ) -> Call:
        """Find what is recorded of a call; raises HistoryMismatch, or InvalidValue."""
        self.check_open(own=not beside)
        if CURRENT.get() is not None:
            raise InvalidValue(
                call, name, "is asked for within another call: leave it to the handler itself"
            )
        adapter = adapter_of(fn)
        unique = self._names.next(name)
        recall = await self.recalled()
        return Call(
            call,
            unique,
            f"{self.lease.run_id}:{unique}",
            beside,
            adapter,
            self._taken(recall, call, unique, beside=beside),
        )

    async def record(self, step: Call) -> None:
        """Append a step's outcome."""
        usd, steps = self._spent(step)
        facts: dict[str, Any] = {
            "name": step.name,
            "cost_usd": usd or None,
            "beside": step.beside or None,
        }
        if step.error is None:
            try:
                await self._append(
                    step, StepCompleted(output=step.output, step_count=steps + 1, **facts)
                )
            except (InvalidValue, PayloadTooLarge) as error:
                step.fail(error, self.limit)
        if step.error is not None:
            failed = StepFailed(
                error_code=HANDLER_FAILED,
                error_detail=step.error,
                step_count=steps or None,
                **facts,
            )
            await self._append(step, failed)

    async def give_up(self, called: Call) -> None:
        """Append that the handler gave up a call whose beginning is on record."""
        failed = StepFailed(
            name=called.name,
            error_code=HANDLER_FAILED,
            error_detail=called.error,
            beside=called.beside or None,
        )
        await self.persist(
            lambda: self.ledger.append(self.lease, failed, key=self._key(called, "given-up")),
            own=not called.beside,
        )

    async def request(self, tool: Call, args: Any, *, gives_way: bool = False) -> None:
        """Move the run to waiting for a tool, held."""
        with self.asking():
            content = {"input": _shown(tool, args), "beside": tool.beside or None}
            await self._move(
                tool,
                State.WAITING_TOOL,
                gives_way=gives_way,
                key=self._key(tool, "asked"),
                content=content,
            )

    async def respond(self, tool: Call) -> None:
        """Move the run on with a tool's answer."""
        usd, steps = self._spent(tool)
        facts: dict[str, Any] = {"key": self._key(tool), "cost_usd_delta": usd}
        if tool.error is None:
            try:
                await self._move(
                    tool, State.RUNNING, output=tool.output, step_count_delta=steps + 1, **facts
                )
            except (InvalidValue, PayloadTooLarge) as error:
                tool.fail(error, self.limit)
        if tool.error is not None:
            facts |= {"error_code": HANDLER_FAILED, "error_detail": tool.error}
            await self._move(tool, State.RUNNING, step_count_delta=steps, **facts)

    async def park_for_tool(
        self, tool: Call, args: Any, started: Any = None, **facts: Any
    ) -> NoReturn:
        """Park the run until somebody answers for a tool."""
        with self.asking():
            content = {"input": _shown(tool, args)}
            output = recordable(f"what asking tool {tool.name!r} returned", started, fallback=repr)
            await self._park(tool, State.WAITING_TOOL, content=content, output=output, **facts)

    async def decision(
        self,
        asked: Call,
        prompt: str,
        *,
        show: Any,
        other_person: bool,
        role: str | None,
        timeout: float | timedelta | None,  # noqa: ASYNC109  the run's time, not the call's
        on_timeout: State | str,
    ) -> Decision:
        """Return the recorded decision about exactly this, or park the run until there is one."""
        with self.asking():
            shown = recordable("show", show)
            digest = shown_sha256(prompt, shown)
            wait = None if timeout is None else check_duration("timeout", timeout, positive=True)
            outcome = check_wait_outcome("on_timeout", on_timeout)
            if asked.recorded is not None and asked.is_answered:
                return self._decided(asked.recorded, digest)
            content = {
                "prompt": prompt,
                "show": shown,
                "shown_sha256": digest,
                "based_on": self._version,
            }
            if other_person:
                content["other_person"] = True
            if role is not None:
                await self.persist(
                    lambda: roles.require_member(self.ledger.pool, self.ledger.project_id, role)
                )
                content["role"] = role
            return await self._park(
                asked, State.WAITING_APPROVAL, content=content, wait=wait, wait_outcome=outcome
            )

    async def note(self, text: object) -> None:
        """Add a remark, unless an earlier attempt has been here."""
        self._notes += 1
        if not (await self.recalled()).replaying:
            key = f"{self.lease.run_id}:note:{self.lease.token}:{self._notes}"
            await self.persist(
                lambda: self.ledger.append(self.lease, NoteAdded(text=str(text)), key=key)
            )

    def cost(self, usd: float | Decimal, steps: int) -> None:
        """Count what was spent towards the call that runs here, else towards the next event."""
        called = CURRENT.get()
        if called is not None:
            called.meter.add(usd, steps)
        elif self._recall is None or not self._recall.replaying:
            self.meter.add(usd, steps)

    def keep_spending(self, called: Call) -> None:
        """Take over what a call spent that will not be recorded: it goes with the next event."""
        self.meter.add(*called.meter.empty())

    @contextmanager
    def asking(self) -> Iterator[None]:
        """End the attempt when a call cannot be asked in this block: it could not be replayed."""
        try:
            yield
        except (InvalidValue, PayloadTooLarge, NobodyHasRole) as error:
            self.ending = self.ending or Refused(error)
            raise

    async def given_up_again(self) -> NoReturn:
        """Wait for the handler to give a call up once more, as it did when this was recorded."""
        await asyncio.get_running_loop().create_future()
        raise AssertionError("nobody sets it")

    def close(self) -> None:
        """Let nothing more be recorded, by tasks that the handler left behind."""
        self.ending = self.ending or Stopped("the handler has ended")

    async def finish(self) -> None:
        """Raise HistoryMismatch for a recorded call left out, InvalidValue for a tool left open."""
        if self._open_tool is not None:
            raise InvalidValue(
                "tool",
                self._open_tool,
                "is still waited for: await every call before the handler returns",
            )
        if self.lease.token != FIRST_TOKEN:
            (await self.recalled()).finish()

    def spending(self) -> NoteAdded | None:
        """Take the costs that have no event yet, as a note: no event that requeues carries them."""
        usd, steps = self.meter.empty()
        if not (usd or steps):
            return None
        return NoteAdded(
            name="spent",
            text="spent in no step or tool, before the attempt ended",
            cost_usd=usd or None,
            step_count=steps or None,
        )

    async def record_spending(self, spending: NoteAdded) -> None:
        """Append costs once, however often they are sent; raises DatabaseUnavailable."""
        key = f"{self.lease.run_id}:#spent:{self.lease.token}"
        with suppress(InvalidValue):  # beyond what the total of a run may be
            await within(
                self.ledger.settings.lease_ttl_seconds,
                self.ledger.append(self.lease, spending, key=key),
            )

    async def persist(
        self, write: Callable[[], Awaitable[R]], *, own: bool = False, gives_way: bool = False
    ) -> R:
        """Make a keyed write, again while the database is away; it lands before the attempt ends.

        A handler that cancels the call meanwhile waits too: what may be on record cannot be given
        up, or the next attempt would go another way. It is cancelled when the write has landed:
        here if that `gives_way`, else where it waits next. `own`: the write belongs to a call of
        the handler itself.
        """
        writing = asyncio.ensure_future(self._until_written(write, own=own))
        is_cancelled = False
        try:
            while True:
                try:
                    written = await asyncio.shield(writing)
                    break
                except asyncio.CancelledError:
                    if writing.cancelled():
                        raise
                    if self.stopped is not None:
                        await asyncio.wait({writing}, timeout=SETTLE_SECONDS)
                        writing.cancel()
                        raise
                    is_cancelled = True
        finally:
            if is_cancelled and not gives_way:
                _cancel_again()
        if is_cancelled and gives_way:
            raise asyncio.CancelledError
        return written

    async def remember(self) -> None:
        """Read what earlier attempts recorded: from here on, new calls are known."""
        if self.lease.token != FIRST_TOKEN:
            await self.recalled()

    @property
    def was_lost(self) -> bool:
        """Whether the attempt before this one ended because its worker died."""
        return self._recall is not None and self._recall.was_lost

    async def recalled(self) -> Recall:
        """Return what earlier attempts recorded; read once."""
        async with self._recalling:
            if self._recall is None:
                new = self.lease.token == FIRST_TOKEN
                events = [] if new else await self.persist(self._history)
                self._recall = Recall(events)
            return self._recall

    async def _history(self) -> Sequence[Event]:
        return await self.ledger.history(self.lease.run_id, heartbeats=False)

    async def _append(self, step: Call, event: Event) -> None:
        await self.persist(
            lambda: self.ledger.append(self.lease, event, key=self._key(step)),
            own=not step.beside,
        )

    async def _move(
        self, called: Call, state: State, *, gives_way: bool = False, **facts: Any
    ) -> None:
        async def write() -> Receipt:
            command = Transition(self.lease, state, name=called.name, **facts)
            receipt = await self._writer.move(self._writer.checked(command))
            self._open_tool = (
                called.name if state is State.WAITING_TOOL else None
            )  # here: who asked may be cancelled by now
            return receipt

        await self.persist(write, own=not called.beside, gives_way=gives_way)

    async def _park(self, called: Call, state: State, **facts: Any) -> NoReturn:
        if called.beside:
            raise InvalidValue(
                called.call,
                called.name,
                "parks the run: ask for it in the handler itself, in no task beside it",
            )
        usd, steps = self._spent(called)
        command = Transition(
            self.lease, state, park=True, name=called.name, key=self._key(called, "asked"),
            cost_usd_delta=usd,
            step_count_delta=steps, **facts,
        )  # fmt: skip
        try:
            await self.persist(lambda: self._writer.close(self._writer.checked(command)))
        except VersionConflict:
            self.meter.add(usd, steps)
            raise
        self.ending = Parked(f"{called.call} {called.name!r}")
        raise self.ending

    async def _until_written(self, write: Callable[[], Awaitable[R]], *, own: bool) -> R:
        while True:
            self.check_open(own=own)
            try:
                written = await within(self.ledger.settings.lease_ttl_seconds, write())
            except DatabaseUnavailable as error:
                self.log.warning(names.WRITE_POSTPONED, reason=str(error))
                await asyncio.sleep(AGAIN_SECONDS)
            except LeaseLost as error:
                self.stopped = Stop.LOST
                raise Stopped(str(error)) from error
            else:
                if isinstance(written, Receipt):
                    self._version = written.version
                return written

    def _taken(self, recall: Recall, call: CallKind, name: str, *, beside: bool) -> Recorded | None:
        try:
            return recall.take(call, name, beside=beside)
        except HistoryMismatch as mismatch:
            self.ending = mismatch
            raise

    def mismatch(self, recorded: str, asked: str) -> NoReturn:
        """End the attempt because the history has something else than the handler asks for."""
        self.ending = HistoryMismatch(recorded, asked)
        raise self.ending

    def _decided(self, recorded: Recorded, digest: str) -> Decision:
        asked: Any = recorded.asked
        answer: Any = recorded.answer
        assert isinstance(asked, ApprovalRequested)
        if asked.shown_sha256 is not None and asked.shown_sha256 != digest:
            self.mismatch(
                f"an approval of what has SHA-256 {asked.shown_sha256}", f"one of {digest}"
            )
        return Decision(answer.actor, answer.reason, answer.recorded_at, answer.output)

    def check_open(self, *, own: bool = False) -> None:
        """Raise what has ended the attempt, if anything has; a refused call ends it for good.

        What a handler returns that has caught this does not count: it goes on from a call that was
        not made.
        """
        if self.ending is not None:
            raise self.ending
        if self.stopped is not None:
            refused = Stopped(self.stopped)
            if own:
                self.ending = refused
            raise refused

    def _spent(self, called: Call) -> tuple[Decimal, int]:
        usd, steps = called.meter.empty()
        if called.beside:
            return usd, steps
        more_usd, more_steps = self.meter.empty()
        return usd + more_usd, steps + more_steps

    def _key(self, called: Call, *more: str) -> str:
        return ":".join((called.key, str(self.lease.token), *more))


def _cancel_again() -> None:
    """Have the current task cancelled once more, if whoever cancelled it still waits for that."""
    task = asyncio.current_task()
    assert task is not None

    def cancel() -> None:
        if task.cancelling():
            task.cancel()
            task.uncancel()  # it is the same cancellation, so it counts once

    asyncio.get_running_loop().call_soon(cancel)


def _shown(tool: Call, value: Any) -> Any:
    return recordable(f"what tool {tool.name!r} is given", value, fallback=repr)
