"""Plain SQL: a table, claimed and finished in batches; what a queue in Python can reach at all."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

KEEPS = "the finished job's row"
GIVES_UP = "leases, retries, wake-ups, history: it only marks limits"
UNFINISHED = "SELECT EXISTS (SELECT FROM plain_job WHERE state <> 2)"
_CLAIM = """UPDATE plain_job SET state = 1 WHERE id = ANY (ARRAY(
  SELECT id FROM plain_job WHERE state = 0 ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED))
RETURNING id, asked_at"""


@asynccontextmanager
async def opened(url: str, slots: int, work: Any) -> AsyncIterator[dict[str, Any]]:
    """Open a pool."""
    async with asyncpg.create_pool(url, min_size=1, max_size=20) as pool:

        async def submit(asked_at: float) -> None:
            await pool.execute("INSERT INTO plain_job (asked_at) VALUES ($1)", asked_at)

        async def submit_many(times: list[float]) -> None:
            await pool.execute(
                "INSERT INTO plain_job (asked_at) SELECT unnest($1::float8[])", times
            )

        async def run() -> None:
            while True:
                jobs = await pool.fetch(_CLAIM, slots)
                for one in jobs:
                    work(one["asked_at"])
                if jobs:
                    ids = [one["id"] for one in jobs]
                    await pool.execute("UPDATE plain_job SET state = 2 WHERE id = ANY ($1)", ids)
                else:
                    await asyncio.sleep(0.002)

        yield {"submit": submit, "submit_many": submit_many, "run": run}


async def set_up(url: str) -> None:
    """Make the table."""
    connection = await asyncpg.connect(url)
    await connection.execute(
        "CREATE TABLE plain_job (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,"
        " asked_at float8 NOT NULL, state smallint NOT NULL DEFAULT 0) WITH (fillfactor = 70);"
        "CREATE INDEX plain_job_open ON plain_job (state, id) WHERE state <> 2"
    )
    await connection.close()
