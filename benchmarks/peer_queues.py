"""Run one queue of another project through the same two measurements.

Run by `benchmarks.queues` in the peers' environment.

Each as its documents advise: rows kept as by default, wake-ups by NOTIFY, bulk enqueueing; all of
them on uvloop.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version
from typing import Any

Work = Callable[[float], None]
"""What a job does: it notes when it began, and when it was asked for."""


class Measured:
    """Counts jobs and their waits."""

    def __init__(self) -> None:
        self.done, self.waits = 0, list[float]()

    def work(self, asked_at: float) -> None:
        """Be a job."""
        self.done += 1
        self.waits.append((time.time() - asked_at) * 1_000)


@asynccontextmanager
async def procrastinate(host: str, slots: int, work: Work) -> AsyncIterator[tuple[Any, Any, Any]]:
    """Procrastinate on psycopg."""
    from procrastinate import App, PsycopgConnector  # type: ignore[import-not-found]  # of the peers' own environment

    app = App(
        connector=PsycopgConnector(
            conninfo=f"host={host} user=postgres dbname=postgres", max_size=20
        )
    )

    @app.task(name="noop")  # type: ignore[misc, untyped-decorator, unused-ignore]  # as above
    async def noop(asked_at: float) -> None:
        work(asked_at)

    async def enqueue(times: list[float]) -> None:
        await noop.batch_defer_async(*({"asked_at": one} for one in times))

    async with app.open_async():
        with suppress(Exception):  # it is there from an earlier round
            await app.schema_manager.apply_schema_async()

        async def left() -> bool:
            query = (
                "SELECT EXISTS (SELECT FROM procrastinate_jobs "
                "WHERE status IN ('todo', 'doing')) AS left"
            )
            return bool((await app.connector.execute_query_one_async(query))["left"])

        yield (
            enqueue,
            lambda: app.run_worker_async(concurrency=slots, install_signal_handlers=False),
            left,
        )


@asynccontextmanager
async def pgqueuer(host: str, slots: int, work: Work) -> AsyncIterator[tuple[Any, Any, Any]]:
    """PGQueuer on asyncpg."""
    import asyncpg
    from pgqueuer import PgQueuer  # type: ignore[import-not-found]  # as above
    from pgqueuer.db import AsyncpgDriver  # type: ignore[import-not-found]  # as above
    from pgqueuer.queries import Queries  # type: ignore[import-not-found]  # as above

    connection, other = [
        await asyncpg.connect(host=host, user="postgres", database="postgres") for _ in range(2)
    ]
    queries = Queries(AsyncpgDriver(other))
    with suppress(Exception):  # it is there from an earlier round
        await queries.install()
    queue = PgQueuer(AsyncpgDriver(connection))

    @queue.entrypoint("noop")  # type: ignore[misc, untyped-decorator, unused-ignore]  # as above
    async def noop(job: Any) -> None:
        work(float(job.payload))

    async def enqueue(times: list[float]) -> None:
        given = [repr(one).encode() for one in times]
        await queries.enqueue(["noop"] * len(given), given, [0] * len(given))

    async def left() -> bool:
        return bool(await other.fetchval("SELECT EXISTS (SELECT FROM pgqueuer)"))

    yield enqueue, lambda: queue.run(batch_size=slots), left
    await connection.close()
    await other.close()


@asynccontextmanager
async def oban(host: str, slots: int, work: Work) -> AsyncIterator[tuple[Any, Any, Any]]:
    """Oban on psycopg."""
    from oban import Oban, worker  # type: ignore[import-not-found]  # as above
    from oban.schema import install  # type: ignore[import-not-found]  # as above
    from psycopg_pool import AsyncConnectionPool  # type: ignore[import-not-found]  # as above

    async with AsyncConnectionPool(
        f"host={host} user=postgres dbname=postgres", min_size=2, max_size=20, open=False
    ) as pool:
        with suppress(Exception):  # it is there from an earlier round
            await install(pool)

        @worker(queue="default")  # type: ignore[misc, untyped-decorator, unused-ignore]  # as above
        class Noop:
            async def process(self, job: Any) -> None:
                work(job.args["asked_at"])

        made: Any = getattr(Noop, "new")  # noqa: B009  the decorator adds it
        here = Oban(pool=pool, queues={"default": slots})

        async def enqueue(times: list[float]) -> None:
            await here.enqueue_many([made({"asked_at": one}) for one in times])

        async def run() -> None:
            async with here:
                await asyncio.Event().wait()

        async def left() -> bool:
            async with pool.connection() as connection:
                found = await connection.execute(
                    "SELECT EXISTS (SELECT FROM oban_jobs WHERE completed_at IS NULL)"
                )
                return bool((await found.fetchone())[0])

        yield enqueue, run, left


async def measured(name: str, host: str, runs: int, slots: int, looks: int) -> dict[str, Any]:
    """Drain a queue of `runs` jobs; then ask an idle worker `looks` times."""
    here = Measured()
    async with globals()[name](host, slots, here.work) as (enqueue, run, left):
        for _ in range(runs // 1_000):
            await enqueue([time.time()] * 1_000)
        begun = time.perf_counter()
        working: asyncio.Future[Any] = asyncio.ensure_future(_as_coroutine(run))
        while here.done < runs and not working.done():  # noqa: ASYNC110  jobs are counted here
            await asyncio.sleep(0.005)
        while not working.done() and await left():  # noqa: ASYNC110  until outcomes are recorded, as Runfold is measured
            await asyncio.sleep(0.005)
        rate = here.done / (time.perf_counter() - begun)
        here.waits.clear()
        for _ in range(looks):
            await enqueue([time.time()])
            await asyncio.sleep(0.1)
        if working.done():
            await working
        working.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await asyncio.wait_for(working, 10)
    waits = sorted(here.waits[5:])
    return {
        "name": name,
        "version": version(name),
        "runs_per_second": round(rate),
        "p50_ms": round(waits[len(waits) // 2], 1),
        "p95_ms": round(waits[int(len(waits) * 0.95)], 1),
    }


async def _as_coroutine(run: Callable[[], Awaitable[Any]]) -> None:
    await run()


if __name__ == "__main__":
    with suppress(ImportError):
        import uvloop  # type: ignore[import-not-found]  # of the peers' own environment

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    which, where, *numbers = sys.argv[1:]
    print(json.dumps(asyncio.run(measured(which, where, *(int(one) for one in numbers)))))
