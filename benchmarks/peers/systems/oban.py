"""Oban for Python on psycopg."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from oban import Oban, worker  # type: ignore[import-not-found]  # of an environment of its own
from oban.schema import install  # type: ignore[import-not-found]  # as above
from psycopg_pool import AsyncConnectionPool  # type: ignore[import-not-found]  # as above

KEEPS = "the finished job's row, for as long as its pruner lets it"
GIVES_UP = "history, fencing, proofs"
UNFINISHED = "SELECT EXISTS (SELECT FROM oban_jobs WHERE completed_at IS NULL)"


@asynccontextmanager
async def opened(url: str, slots: int, work: Any) -> AsyncIterator[dict[str, Any]]:
    """Open the pool."""
    async with AsyncConnectionPool(url, min_size=2, max_size=20, open=False) as pool:

        @worker(queue="default")  # type: ignore[misc, untyped-decorator, unused-ignore]  # as above
        class Noop:
            async def process(self, job: Any) -> None:
                work(job.args["asked_at"])

        made: Any = getattr(Noop, "new")  # noqa: B009  the decorator adds it
        here = Oban(pool=pool, queues={"default": slots})

        async def submit(asked_at: float) -> None:
            await here.enqueue(made({"asked_at": asked_at}))

        async def submit_many(times: list[float]) -> None:
            await here.enqueue_many([made({"asked_at": one}) for one in times])

        async def run() -> None:
            async with here:
                await asyncio.Event().wait()

        yield {"submit": submit, "submit_many": submit_many, "run": run}


async def set_up(url: str) -> None:
    """Make the schema."""
    async with AsyncConnectionPool(url, open=False) as pool:
        await install(pool)
