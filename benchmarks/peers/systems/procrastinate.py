"""Procrastinate on psycopg."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from procrastinate import App, PsycopgConnector  # type: ignore[import-not-found]  # of an environment of its own

KEEPS = "the finished job's row and a row for each of its events"
GIVES_UP = "fencing, outputs, proofs"
UNFINISHED = (
    "SELECT EXISTS (SELECT FROM procrastinate_jobs WHERE status = 'todo')"
    " OR EXISTS (SELECT FROM procrastinate_jobs WHERE status = 'doing')"
)


@asynccontextmanager
async def opened(url: str, slots: int, work: Any) -> AsyncIterator[dict[str, Any]]:
    """Open the app."""
    app = App(connector=PsycopgConnector(conninfo=url, max_size=20))

    @app.task(name="noop")  # type: ignore[misc, untyped-decorator, unused-ignore]  # as above
    async def noop(asked_at: float) -> None:
        work(asked_at)

    async with app.open_async():

        async def submit(asked_at: float) -> None:
            await noop.defer_async(asked_at=asked_at)

        async def submit_many(times: list[float]) -> None:
            await noop.batch_defer_async(*({"asked_at": one} for one in times))

        async def run() -> None:
            await app.run_worker_async(concurrency=slots, install_signal_handlers=False)

        yield {"submit": submit, "submit_many": submit_many, "run": run}


async def set_up(url: str) -> None:
    """Make the schema."""
    app = App(connector=PsycopgConnector(conninfo=url))
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
