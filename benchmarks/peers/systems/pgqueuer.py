"""PGQueuer on asyncpg: managers of a hundred jobs each, which was its best setting."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg
from pgqueuer import PgQueuer  # type: ignore[import-not-found]  # of an environment of its own
from pgqueuer.db import AsyncpgDriver, AsyncpgPoolDriver  # type: ignore[import-not-found]  # as above
from pgqueuer.queries import Queries  # type: ignore[import-not-found]  # as above

KEEPS = "a line in its log; the job's row is deleted"
GIVES_UP = "history, inputs of finished jobs, outputs, proofs"
UNFINISHED = "SELECT EXISTS (SELECT FROM pgqueuer)"
BATCH = 100


@asynccontextmanager
async def opened(url: str, slots: int, work: Any) -> AsyncIterator[dict[str, Any]]:
    """Open connections: one for each manager."""
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(asyncpg.create_pool(url, min_size=1, max_size=20))
        queries = Queries(AsyncpgPoolDriver(pool))

        async def submit(asked_at: float) -> None:
            await queries.enqueue("noop", repr(asked_at).encode(), 0)

        async def submit_many(times: list[float]) -> None:
            given = [repr(one).encode() for one in times]
            await queries.enqueue(["noop"] * len(given), given, [0] * len(given))

        async def manage(batch: int) -> None:
            queue = PgQueuer(AsyncpgDriver(await asyncpg.connect(url)))

            @queue.entrypoint("noop")  # type: ignore[misc, untyped-decorator, unused-ignore]  # as above
            async def noop(job: Any) -> None:
                work(float(job.payload))

            await queue.run(batch_size=batch)

        async def run() -> None:
            await asyncio.gather(
                *(manage(min(slots, BATCH)) for _ in range(max(slots // BATCH, 1)))
            )

        yield {"submit": submit, "submit_many": submit_many, "run": run}


async def set_up(url: str) -> None:
    """Make the schema."""
    connection = await asyncpg.connect(url)
    await Queries(AsyncpgDriver(connection)).install()
    await connection.close()
