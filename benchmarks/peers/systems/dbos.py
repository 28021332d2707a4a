"""DBOS, a workflow of no step from its queue, polled as often as it can be."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from dbos import DBOS  # type: ignore[import-not-found]  # of an environment of its own

KEEPS = "the workflow's row with its input and output, and the rows of its steps"
GIVES_UP = "history of attempts, proofs; it has no bulk submission"
UNFINISHED = """SELECT EXISTS (
  SELECT FROM dbos.workflow_status WHERE status IN ('ENQUEUED', 'PENDING'))"""


@asynccontextmanager
async def opened(url: str, slots: int, work: Any) -> AsyncIterator[dict[str, Any]]:
    """Launch it; every process is an executor of one application."""
    DBOS(
        config={
            "name": "bench",
            "system_database_url": url.replace("postgresql://", "postgresql+psycopg://"),
            "application_version": "1",
            "log_level": "ERROR",
            "notification_listener_polling_interval_sec": 0.01,
        }
    )

    @DBOS.workflow()  # type: ignore[misc, untyped-decorator, unused-ignore]  # as above
    async def noop(asked_at: float) -> None:
        work(asked_at)

    DBOS.listen_queues(["bench"] if slots > 1 else [])  # who submits runs nothing
    DBOS.launch()

    async def submit(asked_at: float) -> None:
        await DBOS.enqueue_workflow_async("bench", noop, asked_at)

    async def submit_many(times: list[float]) -> None:
        for at in range(0, len(times), 32):
            await asyncio.gather(*(submit(one) for one in times[at : at + 32]))

    async def run() -> None:
        await _declared(slots)
        await asyncio.Event().wait()

    yield {"submit": submit, "submit_many": submit_many, "run": run}
    DBOS.destroy()


async def set_up(url: str) -> None:
    """Launch it once, which makes the schema."""
    async with opened(url, 1, print):
        await _declared(1)


async def _declared(slots: int) -> None:
    await DBOS.register_queue_async(
        "bench", worker_concurrency=slots, polling_interval_sec=0.01, on_conflict="always_update"
    )
