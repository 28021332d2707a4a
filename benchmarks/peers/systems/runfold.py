"""Runfold, through its whole runtime."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from runfold.ledger import Ledger, Submit
from runfold.ledger.postgres.schema import upgrade
from runfold.workers import Worker, handler

KEEPS = "every lease, outcome and hash for ever, content apart from facts"
GIVES_UP = "nothing that is measured here"
UNFINISHED = """SELECT EXISTS (SELECT FROM ledger.run_state WHERE available_at <= created_at)
OR EXISTS (SELECT FROM ledger.run_state WHERE available_at > created_at)
OR EXISTS (SELECT FROM ledger.run_state WHERE token IS NOT NULL)"""


@asynccontextmanager
async def opened(url: str, slots: int, work: Any) -> AsyncIterator[dict[str, Any]]:
    """Open the ledger."""

    @handler("noop")
    async def noop(_: Any, asked_at: float) -> None:
        work(asked_at)

    async with Ledger.open(url, "bench", create_project=True) as ledger:

        async def submit(asked_at: float) -> None:
            await ledger.submit("noop", asked_at)

        async def submit_many(times: list[float]) -> None:
            await ledger.submit_many([Submit(kind="noop", input=one) for one in times])

        async def run() -> None:
            await Worker(ledger, noop, concurrency=slots).run()

        yield {"submit": submit, "submit_many": submit_many, "run": run}


async def set_up(url: str) -> None:
    """Make the schema."""
    await upgrade(url)
