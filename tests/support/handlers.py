"""Handlers that tests start in processes of their own."""

from __future__ import annotations

import asyncio
import ctypes
import multiprocessing
import os
import signal
import sys
import time
from multiprocessing.synchronize import Event
from pathlib import Path

from runfold.workers import Backoff, BlockingContext, Context, handler

PLAIN = 7
FORK = multiprocessing.get_context("fork")


def tell() -> None:
    """Make the file by which a test knows that a handler was called: its run is leased before."""
    if called := os.environ.get("TEST_CALLED"):
        Path(called).touch()


@handler("double")
async def double(ctx: Context, number: int) -> int:
    return 2 * number


@handler("ask")
async def ask(ctx: Context, what: str) -> str:
    decision = await ctx.approval(f"May it {what}?", show=what)
    return f"{decision.actor}: {await ctx.step('do', slowly, what)}"


@handler("countersign")
async def countersign(ctx: Context) -> list[str]:
    decision = await ctx.approval("May it fly?", approvals=2)
    return sorted(yes.actor for yes in decision.approvers)


@handler("hang")
async def hang(ctx: Context) -> None:
    tell()
    await asyncio.sleep(3600)


@handler("flaky", retry=Backoff(first=0.3, jitter=0))
async def flaky(ctx: Context) -> int:
    """Fail in the first attempt."""
    if ctx.attempt == 1:
        raise ConnectionError("not yet")
    return ctx.attempt


@handler("steps", retry=Backoff(first=0, jitter=0))
async def steps(ctx: Context) -> list[str]:
    """Three steps that take a while, and a tool."""
    found = [await ctx.step(f"step-{number}", slowly, f"{number}") for number in range(3)]
    found.append(await ctx.tool("tool", slowly, "tool"))
    return found


@handler("gated", retry=Backoff(first=0, jitter=0))
async def gated(ctx: Context, gate: str) -> list[str]:
    """Do as `steps`, but go on from the first step only when a file is there."""
    tell()
    found = [await ctx.step("step-0", slowly, "0")]
    await opened(gate)
    found += [await ctx.step(f"step-{number}", slowly, f"{number}") for number in (1, 2)]
    return [*found, await ctx.tool("tool", slowly, "tool")]


@handler("gated_tool", retry=Backoff(first=0, jitter=0))
async def gated_tool(ctx: Context, gate: str) -> list[str]:
    """Do as `steps`, but end the tool only when a file is there."""

    async def tool() -> str:
        await opened(gate)
        return "tool"

    found = [await ctx.step(f"step-{number}", slowly, f"{number}") for number in range(3)]
    return [*found, await ctx.tool("tool", tool)]


async def opened(gate: str) -> None:
    """Return once a file is there."""
    while not await asyncio.to_thread(os.path.exists, gate):  # noqa: ASYNC110  of another process
        await asyncio.sleep(0.02)


async def slowly(text: str) -> str:
    await asyncio.sleep(0.15)
    return text


@handler("naps")
async def naps(ctx: Context) -> str:
    """Sleep long enough for the run to be given back, twice."""
    for _ in range(2):
        await ctx.sleep(0.5)
    return "rested"


@handler("listens")
async def listens(ctx: Context) -> str:
    """Wait for a signal, and do a step with its value."""
    return await ctx.step("do", slowly, await ctx.wait_for("go"))


@handler("parent", retry=Backoff(first=0, jitter=0))
async def parent(ctx: Context) -> int:
    """Have two children, and add what they return."""
    return sum(await ctx.children("double", [4, 4], max_attempts=5))


@handler("poison")
async def poison(ctx: Context) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@handler("forks")
def forks(ctx: BlockingContext) -> int | None:
    """Fork a process, and end it by SIGTERM; return how it ended."""
    begun = FORK.Event()
    child = FORK.Process(target=_linger, args=(begun,))
    child.start()
    begun.wait(60)
    child.terminate()
    child.join(60)
    return child.exitcode


def _linger(begun: Event) -> None:
    begun.set()
    time.sleep(60)


@handler("splits")
async def splits(ctx: Context) -> tuple[int, int]:
    """Fork a process that goes on as if it were the worker.

    Return its exit code, and how often was done what another handler had ready.
    """
    reading, writing = os.pipe()
    asyncio.get_running_loop().call_soon(os.write, writing, b"x")
    if (child := os.fork()) == 0:
        await asyncio.sleep(3600)
    await asyncio.sleep(0)
    _, status = await asyncio.to_thread(os.waitpid, child, 0)
    return os.waitstatus_to_exitcode(status), len(os.read(reading, 64))


@handler("splits_thread")
def splits_thread(ctx: BlockingContext, calls: int) -> int:
    """Fork a process that goes on as if it were the handler; return its exit code."""
    if (child := os.fork()) == 0:
        for _ in range(calls):
            ctx.step("in vain", int)
        return 0
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@handler("ignores")
async def ignores(ctx: Context) -> None:
    """Take no notice of being cancelled."""
    tell()
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            continue


@handler("stuck")
def stuck(ctx: BlockingContext) -> None:
    """Never return from a thread."""
    tell()
    time.sleep(3600)


@handler("pooled")
async def pooled(ctx: Context) -> None:
    """Leave a thread behind that the interpreter would wait for."""
    tell()
    await asyncio.to_thread(time.sleep, 3600)


@handler("blocks")
async def blocks(ctx: Context) -> None:
    """Hold up the loop."""
    tell()
    time.sleep(3600)  # noqa: ASYNC251  it is what is tested


@handler("stops")
async def stops(ctx: Context) -> None:
    """Stop the worker's loop."""
    asyncio.get_running_loop().stop()
    await asyncio.sleep(3600)


@handler("cancels")
async def cancels(ctx: Context) -> None:
    """Cancel every task of the loop, the worker's own among them."""
    for task in asyncio.all_tasks():
        task.cancel()
    await asyncio.sleep(3600)


@handler("exits")
async def exits(ctx: Context) -> None:
    """Exit from a task of its own."""

    async def leave() -> None:
        sys.exit(0)

    task = asyncio.create_task(leave())
    await asyncio.sleep(3600)
    await task


@handler("deafens")
async def deafens(ctx: Context, way: str) -> None:
    """Take the worker's signals, and wait."""
    if way == "signal":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: None)
    await asyncio.sleep(3600)


@handler("freezes")
async def freezes(ctx: Context, seconds: int) -> None:
    """Hold the interpreter's lock in a call of C."""
    tell()
    ctypes.PyDLL(None).sleep(seconds)
