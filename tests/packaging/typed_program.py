"""A user's program: what a type checker must understand of the library."""

from __future__ import annotations

import asyncio

from runfold import Context, Ledger, Worker, handler
from runfold.projections import Projection, count, day, of_run, total

SPENDING = Projection(
    "my_spending",
    version=1,
    key={"project_id": "project_id", "kind": of_run("kind"), "day": day()},
    columns={"cost_usd": total("cost_usd"), "failed": count({"run.failed"})},
)


@handler("refund")
async def refund(ctx: Context, order: str) -> str:
    """Pay an order back."""
    return await ctx.step("pay", _pay, order)


async def _pay(order: str) -> str:
    return f"paid {order}"


async def main() -> None:
    """Submit a run and work until it is done."""
    async with Ledger.open() as ledger:
        submitted = await ledger.submit("refund", "A-17", priority=1)
        worker = Worker(ledger, [refund], concurrency=20)
        worker.stop()
        await worker.run()
        run = await ledger.get(submitted.run_id)
        print(run.state.upper())


if __name__ == "__main__":
    asyncio.run(main())
