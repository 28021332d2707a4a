"""Every write that a worker makes for a handler, each with what its run comes to all the same."""

from __future__ import annotations

from typing import Any, NamedTuple

from runfold import Backoff, Cancel, Context, Fail, Handler, Ledger, Run, State, handler
from tests.support.working import reached


@handler("step")
async def step(ctx: Context) -> str:
    return await ctx.step("pay", lambda: "paid")


@handler("failed-step")
async def failed_step(ctx: Context) -> str:
    try:
        await ctx.step("pay", lambda: 1 // 0)
    except Exception:
        return "paid"
    return "unpaid"


@handler("tool")
async def tool(ctx: Context) -> Any:
    return await ctx.tool("pay", lambda: "paid")


@handler("failed-tool")
async def failed_tool(ctx: Context) -> str:
    try:
        await ctx.tool("pay", lambda: 1 // 0)
    except Exception:
        return "paid"
    return "unpaid"


@handler("note")
async def note(ctx: Context) -> str:
    await ctx.note("to pay")
    return "paid"


@handler("parked-tool")
async def parked_tool(ctx: Context) -> Any:
    return await ctx.tool("pay", None, park=True)


@handler("approval")
async def approval(ctx: Context) -> str:
    await ctx.approval("pay?")
    return "paid"


@handler("signal")
async def signal(ctx: Context) -> Any:
    return await ctx.wait_for("pay")


@handler("child")
async def child(ctx: Context) -> Any:
    return await ctx.child("step")


@handler("children")
async def children(ctx: Context) -> Any:
    return (await ctx.children("step", [None] * 3))[0]


@handler("retry", retry=Backoff(first=0))
async def retry(ctx: Context) -> str:
    if ctx.attempt == 1:
        ctx.cost(usd=1)
        raise ConnectionError("the bank is away")
    return "paid"


@handler("sleep")
async def sleep(ctx: Context) -> str:
    await ctx.sleep(1.2)
    return "paid"


@handler("fail")
async def fail(_: Context) -> Fail:
    return Fail("no-money")


@handler("cancel")
async def cancel(_: Context) -> Cancel:
    return Cancel("no need")


class Write(NamedTuple):
    """A write of a worker: the handler that makes it, and what its run comes to all the same."""

    handler: Handler[..., Any]
    type: str
    state: State = State.COMPLETED
    attempts: int = 1
    again: int = 0
    """How often the run is leased after the first time; for a parent, once a child at most."""


WRITES = (
    Write(step, "step.completed"),
    Write(step, "run.completed"),
    Write(failed_step, "step.failed"),
    Write(tool, "tool.requested"),
    Write(tool, "tool.completed"),
    Write(failed_tool, "tool.failed"),
    Write(note, "note.added"),
    Write(parked_tool, "tool.requested", again=1),
    Write(approval, "approval.requested", again=1),
    Write(signal, "tool.requested"),
    Write(signal, "tool.completed"),
    Write(child, "tool.requested", again=1),
    Write(child, "run.submitted", again=1),
    Write(children, "tool.requested", again=3),
    Write(children, "run.submitted", again=3),
    Write(retry, "run.retried", attempts=2, again=1),
    Write(retry, "note.added", attempts=2, again=1),
    Write(sleep, "lease.released", again=1),
    Write(fail, "run.failed", State.FAILED),
    Write(cancel, "run.cancelled", State.CANCELLED),
)


async def answer(ledger: Ledger, run: Run, asked: Handler[..., Any]) -> None:
    """Answer what the handler parks its run for."""
    if asked is parked_tool:
        await reached(ledger, run, State.WAITING_TOOL)
        await ledger.answer(run.run_id, "paid")
    elif asked is approval:
        await ledger.approve(await reached(ledger, run, State.WAITING_APPROVAL), actor="ann")
