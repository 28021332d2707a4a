"""Handlers that tests start in processes of their own."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import time
from multiprocessing.synchronize import Event

from runfold.workers import Backoff, BlockingContext, Context, handler

PLAIN = 7
FORK = multiprocessing.get_context("fork")


@handler("double")
async def double(ctx: Context, number: int) -> int:
    return 2 * number


@handler("ask")
async def ask(ctx: Context, what: str) -> str:
    decision = await ctx.approval(f"May it {what}?", show=what)
    return f"{decision.actor}: {await ctx.step('do', slowly, what)}"


@handler("hang")
async def hang(ctx: Context) -> None:
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


async def slowly(text: str) -> str:
    await asyncio.sleep(0.15)
    return text


@handler("poison")
async def poison(ctx: Context) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@handler("forks")
def forks(ctx: BlockingContext) -> int | None:
    """Fork a process, and end it by SIGTERM; gives how it ended."""
    begun = FORK.Event()
    child = FORK.Process(target=_linger, args=(begun,))
    child.start()
    begun.wait(20)
    child.terminate()
    child.join(20)
    return child.exitcode


def _linger(begun: Event) -> None:
    begun.set()
    time.sleep(60)
