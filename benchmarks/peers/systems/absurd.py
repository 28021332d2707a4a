"""Absurd, whose schema comes with its own command."""

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from absurd_sdk import AsyncAbsurd  # type: ignore[import-not-found]  # of an environment of its own

KEEPS = "the finished task's row, its attempts and the checkpoints of its steps"
GIVES_UP = "history of leases, proofs; it has no bulk submission"
UNFINISHED = "SELECT EXISTS (SELECT FROM absurd.t_bench WHERE state NOT IN ('completed', 'failed'))"


@asynccontextmanager
async def opened(url: str, slots: int, work: Any) -> AsyncIterator[dict[str, Any]]:
    """Open the app."""
    app = AsyncAbsurd(url, queue_name="bench")

    @app.register_task(name="noop")  # type: ignore[misc, untyped-decorator, unused-ignore]  # as above
    async def noop(params: Any, _: Any) -> None:
        work(params["asked_at"])

    async def submit(asked_at: float) -> None:
        await app.spawn("noop", {"asked_at": asked_at})

    async def submit_many(times: list[float]) -> None:
        for one in times:
            await submit(one)

    async def run() -> None:
        await app.start_worker(concurrency=slots, poll_interval=0.01)

    yield {"submit": submit, "submit_many": submit_many, "run": run}
    await app.close()


async def set_up(url: str) -> None:
    """Make the schema and the queue."""
    command = Path(sys.executable).with_name("absurdctl")
    subprocess.run([command, "init", "-d", url], check=True, capture_output=True)  # noqa: S603, ASYNC221  a script of set-up
    app = AsyncAbsurd(url)
    await app.create_queue("bench")
    await app.close()
