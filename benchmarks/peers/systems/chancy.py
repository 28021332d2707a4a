"""Chancy on psycopg, with its executor for coroutines and polling as often as it can."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from chancy import Chancy, Queue, Worker, job  # type: ignore[import-not-found]  # of an environment of its own

KEEPS = "the finished job's row, for as long as its pruner lets it"
GIVES_UP = "history, fencing, outputs, proofs"
UNFINISHED = "SELECT EXISTS (SELECT FROM chancy_jobs WHERE completed_at IS NULL)"
_DONE: list[Any] = []


@job()  # type: ignore[misc, untyped-decorator, unused-ignore]  # as above
async def noop(*, asked_at: float) -> None:
    """Be a job: found by its name, so it is a function of the module."""
    _DONE[0](asked_at)


@asynccontextmanager
async def opened(url: str, slots: int, work: Any) -> AsyncIterator[dict[str, Any]]:
    """Open the app and declare its queue."""
    _DONE[:] = [work]
    async with Chancy(url) as app:
        queue = Queue(
            "default",
            concurrency=slots,
            executor="chancy.executors.asyncex.AsyncExecutor",
            polling_interval=1,
            eager_polling=True,
        )
        await app.declare(queue, upsert=True)

        async def submit(asked_at: float) -> None:
            await app.push(noop.job.with_kwargs(asked_at=asked_at))

        async def submit_many(times: list[float]) -> None:
            jobs = [noop.job.with_kwargs(asked_at=one) for one in times]
            async for _ in app.push_many(jobs):
                pass

        async def run() -> None:
            async with Worker(app) as worker:
                await worker.wait_for_shutdown()

        yield {"submit": submit, "submit_many": submit_many, "run": run}


async def set_up(url: str) -> None:
    """Make the schema."""
    async with Chancy(url) as app:
        await app.migrate()
