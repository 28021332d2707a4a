"""Worker processes that die or stall: runs come back, and no token does anything twice."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import textwrap
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import psutil  # type: ignore[import-untyped]

from runfold.ledger import Ledger, State, Submit
from runfold.ledger.events import LeaseAcquired, LeaseExpired, WriteRefused
from tests.support.databases import PROJECT
from tests.support.waiting import BOUND, passed, until

PRELUDE = """
    import asyncio, sys
    from runfold.ledger import Ledger, State
    from runfold.ledger.errors import LeaseLost

    async def work(ledger):
    {body}

    async def main():
        async with Ledger.open(sys.argv[1], sys.argv[2]) as ledger:
            await work(ledger)

    asyncio.run(main())
"""


@asynccontextmanager
async def worker(database: str, body: str) -> AsyncIterator[Process]:
    """Run the body as a process with `ledger` in scope, and kill it in the end."""
    inner = textwrap.indent(textwrap.dedent(body), " " * 4)
    code = textwrap.dedent(PRELUDE).replace("{body}", inner)
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "error",
        "-c",
        code,
        database,
        PROJECT,
        stdin=PIPE,
        stdout=PIPE,
        env=here,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def line(process: Process) -> str:
    """Read what the worker says next."""
    assert process.stdout is not None
    said = await asyncio.wait_for(process.stdout.readline(), BOUND)
    assert said, "the worker ended without a word"
    return said.decode().strip()


async def killed(process: Process) -> None:
    """Kill the worker as the kernel would."""
    process.send_signal(signal.SIGKILL)
    assert await process.wait() == -signal.SIGKILL


async def finished(ledger: Ledger, total: int) -> None:
    """Reap and complete until every run is completed."""

    async def all_done() -> bool:
        await ledger.reap()
        for lease in await ledger.claim("w:heir", limit=50):
            await ledger.transition(lease, State.COMPLETED, output="heir")
        return len(await ledger.runs(state=State.COMPLETED, limit=1_000)) == total

    await until(all_done)


async def assert_done_once(ledger: Ledger, run_ids: list[UUID]) -> None:
    """Fail unless each run has one completion, and each token belongs to one lease."""
    for run_id in run_ids:
        history = await ledger.history(run_id)
        kinds = Counter(event.type for event in history)
        leases = [event for event in history if isinstance(event, LeaseAcquired)]
        assert kinds["run.completed"] == 1
        assert len({lease.token for lease in leases}) == len(leases) == kinds["lease.expired"] + 1


async def test_the_runs_of_a_killed_worker_come_back_and_are_completed_by_another(
    ledger: Ledger, database: str
) -> None:
    made = [one.run_id for one in await ledger.submit_many([Submit(kind="parse")] * 5)]
    claims = """
        leases = await ledger.claim("w:victim", limit=5, ttl=1)
        leases = await ledger.heartbeat(leases)
        print(len(leases), flush=True)
        await asyncio.sleep(600)
    """

    async with worker(database, claims) as victim:
        assert await line(victim) == "5"
        await killed(victim)
    assert await ledger.claim("w:heir", limit=5) == []
    for run_id in made:
        await passed(ledger, (await ledger.get(run_id)).lease_until)
    reaped = await ledger.reap()
    leases = await ledger.claim("w:heir", limit=10)
    for lease in leases:
        await ledger.transition(lease, State.COMPLETED)

    assert {run.run_id for run in reaped} == {lease.run_id for lease in leases} == set(made)
    assert {lease.attempt for lease in leases} == {2}
    await assert_done_once(ledger, made)
    expired = [event for event in await ledger.history(made[0]) if isinstance(event, LeaseExpired)]
    assert [event.compensates for event in expired] == [2]


async def test_a_worker_killed_in_the_middle_of_its_work_leaves_nothing_half_done_or_done_twice(
    ledger: Ledger, database: str
) -> None:
    kinds = ("one", "two", "any")  # each worker has enough of its own, however fast the other is
    runs = [Submit(kind=kind, max_attempts=9) for kind in kinds * 40]
    made = [one.run_id for one in await ledger.submit_many(runs)]
    works = """
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        kinds = ["NAME", "any"]
        while leases := await ledger.claim("w:NAME", kinds=kinds, limit=7, ttl=0.5):
            for lease in leases:
                await ledger.transition(lease, State.WAITING_TOOL, cost_usd_delta=1)
                await ledger.transition(lease, State.RUNNING, output=1)
                await ledger.transition(lease, State.COMPLETED, output=2, step_count_delta=1)
                print(lease.run_id, flush=True)
        await asyncio.sleep(600)
    """

    async with (
        worker(database, works.replace("NAME", "one")) as one,
        worker(database, works.replace("NAME", "two")) as two,
    ):
        for process in (one, two):
            assert await line(process) == "ready"
        said = []
        for process in (one, two):
            assert process.stdin is not None
            process.stdin.write(b"go\n")
        for _ in range(8):
            said += [await line(one), await line(two)]
        await killed(one)
        said += [await line(two) for _ in range(5)]
        await killed(two)
    await finished(ledger, len(made))

    await assert_done_once(ledger, made)
    outputs = {str(run.run_id): run.output for run in await ledger.runs(limit=1_000)}
    assert {outputs[run_id] for run_id in said} == {2}


async def test_a_worker_that_stalls_past_its_lease_is_refused_when_it_wakes(
    ledger: Ledger, database: str
) -> None:
    run = await ledger.submit("parse")
    stalls = """
        (lease,) = await ledger.claim("w:stalled", ttl=0.5)
        print(lease.token, flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        try:
            await ledger.transition(lease, State.COMPLETED, output="stale")
        except LeaseLost as error:
            print("refused", error.token, error.current_token, flush=True)
        (beaten,) = await ledger.heartbeat([lease])
        print("lost" if beaten.lost else "held", flush=True)
    """

    async with worker(database, stalls) as stalled:
        token = int(await line(stalled))
        stalled.send_signal(signal.SIGSTOP)
        await until(lambda: psutil.Process(stalled.pid).status() == psutil.STATUS_STOPPED)
        await passed(ledger, (await ledger.get(run.run_id)).lease_until)
        await ledger.reap()
        (new,) = await ledger.claim("w:new")
        stalled.send_signal(signal.SIGCONT)
        assert stalled.stdin is not None
        stalled.stdin.write(b"go on\n")
        assert await line(stalled) == f"refused {token} {new.token}"
        assert await line(stalled) == "lost"
    done = await ledger.transition(new, State.COMPLETED, output="fresh")
    refused = [
        event for event in await ledger.history(run.run_id) if isinstance(event, WriteRefused)
    ]

    assert done.output == "fresh"
    assert [(event.name, event.token, event.worker_id) for event in refused] == [
        ("transition", token, "w:stalled"),
        ("heartbeat", token, "w:stalled"),
    ]


async def test_a_worker_killed_inside_a_transaction_leaves_no_trace_of_it(
    ledger: Ledger, database: str
) -> None:
    hangs = """
        import asyncpg
        connection = await asyncpg.connect(sys.argv[1])
        await connection.execute("BEGIN")
        run = await ledger.submit("parse", key="k", connection=connection)
        print(run.run_id, flush=True)
        await asyncio.sleep(600)
    """

    async with worker(database, hangs) as hanging:
        await line(hanging)
        await killed(hanging)
    run = await asyncio.wait_for(ledger.submit("other", key="k"), BOUND)

    assert [found.run_id for found in await ledger.runs()] == [run.run_id]
