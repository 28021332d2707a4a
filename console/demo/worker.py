"""One worker of the demo, a program of its own: it works until its standard input closes."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from pydantic import JsonValue

from runfold.console.cli.kit.output import talk
from runfold.console.demo.measure import Measures, ToolUnavailable, call_tool, measure, price, tool
from runfold.console.shared.plain import number_of
from runfold.ledger import Lease, Ledger, State
from runfold.ledger.errors import LeaseLost, LedgerError
from runfold.ledger.events import ApprovalGranted, ApprovalRequested, Event

KIND: Final = "measure"
BATCH: Final = 24
BATCH_SECONDS: Final = 2.5
"""How long a batch should last at least: some beats long, however fast the machine is."""
TTL_SECONDS: Final = 3.0
BEAT_SECONDS: Final = 0.7
IDLE_SECONDS: Final = 0.1
APPROVAL_SECONDS: Final = 300.0
FIRST_TOKEN: Final = 2
UNREADABLE: Final = "E-DEMO-001"
TOOL_FAILED: Final = "E-DEMO-002"


class Worker:
    """Claims batches of runs and works on one file after the other."""

    def __init__(self, ledger: Ledger, worker_id: str) -> None:
        self._ledger, self._id = ledger, worker_id
        self._held: dict[UUID, Lease] = {}
        self._batch = BATCH
        self._writing = asyncio.Lock()

    async def run(self) -> None:
        """Work and beat until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._beat())
            tasks.create_task(self._work())

    async def _work(self) -> None:
        while True:
            leases = await self._ledger.claim(
                self._id, limit=self._batch, kinds=[KIND], ttl=TTL_SECONDS
            )
            if not leases:
                await asyncio.sleep(IDLE_SECONDS)
                continue
            started = time.monotonic()
            self._held = {lease.run_id: lease for lease in leases}
            for lease in leases:
                if lease.run_id in self._held:
                    await self._attempt(lease)
            rate = len(leases) / (time.monotonic() - started)
            self._batch = max(BATCH, int(rate * BATCH_SECONDS))

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            # A lease given up between a beat's start and its end would count as a refused write.
            async with self._writing:
                for lease in await self._ledger.heartbeat(list(self._held.values())):
                    if lease.lost:
                        self._held.pop(lease.run_id, None)

    async def _attempt(self, lease: Lease) -> None:
        try:
            approved = await self._approved(lease)
            if approved is not None:
                await self._close(lease, State.COMPLETED, output=approved, step_count_delta=1)
            else:
                await self._examine(lease, Path(lease.input["path"]))
        except LeaseLost:
            self._held.pop(lease.run_id, None)

    async def _approved(self, lease: Lease) -> JsonValue:
        """Return the content that was shown for a granted approval; None without one."""
        if lease.token == FIRST_TOKEN:
            return None
        history: Sequence[Event] = await self._ledger.history(lease.run_id)
        if not any(isinstance(event, ApprovalGranted) for event in history):
            return None
        return next(
            event.show for event in reversed(history) if isinstance(event, ApprovalRequested)
        )

    async def _examine(self, lease: Lease, path: Path) -> None:
        try:
            measures = await asyncio.to_thread(measure, path)
            await self._ask_tool(lease, path, measures.bytes)
        except (OSError, SyntaxError, ValueError) as error:
            await self._close(lease, State.FAILED, error_code=UNREADABLE, error_detail=str(error))
        except ToolUnavailable as error:
            await self._close(lease, State.FAILED, error_code=TOOL_FAILED, error_detail=str(error))
        else:
            if measures.is_large:
                await self._ask_person(lease, path, measures)
            else:
                await self._close(
                    lease, State.COMPLETED, output=measures.shown(), step_count_delta=1
                )

    async def _ask_tool(self, lease: Lease, path: Path, size: int) -> None:
        words, names = tool()
        await self._ledger.transition(
            lease, State.WAITING_TOOL, name=words[0], content={"input": {"path": str(path)}}
        )
        try:
            answer = await asyncio.to_thread(call_tool, words, names, path)
        except ToolUnavailable as error:
            await self._ledger.transition(
                lease, State.RUNNING, name=words[0], error_code=TOOL_FAILED, error_detail=str(error)
            )
            raise
        await self._ledger.transition(
            lease,
            State.RUNNING,
            name=words[0],
            output=answer,
            cost_usd_delta=price(size),
            step_count_delta=1,
        )

    async def _ask_person(self, lease: Lease, path: Path, measures: Measures) -> None:
        size = f"{number_of(measures.lines, 'line')} and {number_of(measures.bytes, 'byte')}"
        prompt = f"{path.name} has {size}: accept it?"
        await self._close(
            lease,
            State.WAITING_APPROVAL,
            park=True,
            name="size-limit",
            content={"prompt": prompt, "show": measures.shown()},
            wait=APPROVAL_SECONDS,
        )

    async def _close(self, lease: Lease, state: State, **facts: Any) -> None:
        """Make the last write under the lease; no heartbeat for it is in flight or follows."""
        async with self._writing:
            self._held.pop(lease.run_id, None)
            await self._ledger.transition(lease, state, **facts)


async def work(project: str, worker_id: str) -> None:
    """Work until standard input closes, as it does when the parent dies."""
    closed = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), closed.set)
    async with Ledger.open(project=project) as ledger:
        working = asyncio.create_task(Worker(ledger, worker_id).run())
        stopping = asyncio.create_task(closed.wait())
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if stopping.done():
            working.cancel()
        stopping.cancel()
        await asyncio.gather(working, stopping, return_exceptions=True)
        if not working.cancelled():
            working.result()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the worker that the command line names and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m runfold.console.demo.worker", description=__doc__
    )
    parser.add_argument("project")
    parser.add_argument("worker_id")
    options = parser.parse_args(arguments)
    code = 0
    try:
        asyncio.run(work(options.project, options.worker_id))
    except* LedgerError as errors:
        code = 1
        for error in errors.exceptions:
            talk(f"{options.worker_id}: {error}")
    return code


if __name__ == "__main__":
    sys.exit(main())
