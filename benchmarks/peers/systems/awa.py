"""Awa: a core in Rust with handlers in Python."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from awa import AsyncClient  # type: ignore[import-not-found]  # of an environment of its own

KEEPS = "finished jobs, for as long as its retention lets it (a day by default)"
GIVES_UP = "history of attempts, fencing, proofs"
UNFINISHED = """SELECT (SELECT count(DISTINCT job_id) FROM awa.ready_entries)
  > (SELECT coalesce(sum(completed_count), 0) FROM awa.receipt_completion_batches)
  + (SELECT count(*) FROM awa.done_entries)"""
"""Its view `jobs` says the same, but takes seconds for it, in which its workers have to wait."""


@dataclass
class Noop:
    """A job."""

    asked_at: float


@asynccontextmanager
async def opened(url: str, slots: int, work: Any) -> AsyncIterator[dict[str, Any]]:
    """Open a client."""
    client = AsyncClient(_named(url), 20)

    @client.task(Noop, queue="bench")  # type: ignore[misc, untyped-decorator, unused-ignore]  # as above
    async def noop(job: Any) -> None:
        work(job.args.asked_at)

    async def submit(asked_at: float) -> None:
        await client.insert(Noop(asked_at), queue="bench")

    async def submit_many(times: list[float]) -> None:
        await client.enqueue_many_copy([Noop(one) for one in times], queue="bench")

    async def run() -> None:
        await client.start([("bench", slots)], poll_interval_ms=10)
        try:
            await asyncio.Event().wait()
        finally:
            await client.shutdown()

    yield {"submit": submit, "submit_many": submit_many, "run": run}
    await client.close()


async def set_up(url: str) -> None:
    """Make the schema."""
    client = AsyncClient(_named(url))
    await client.migrate()
    await client.install_queue_storage()
    await client.close()


def _named(url: str) -> str:
    """Return the URL with a host beside the folder of the socket: its driver wants one."""
    return url.replace("@/", "@localhost/")
