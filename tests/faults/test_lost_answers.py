"""A write whose answer is lost was made: its maker finds that out, and makes no second one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import groupby
from typing import TypeAlias

import asyncpg
import pytest

from runfold import Context, Ledger, handler
from runfold.workers import ending
from runfold.workers.journal import recorder
from tests.support.databases import PROJECT
from tests.support.proxy import Proxy, proxied
from tests.support.runs import types
from tests.support.waiting import until
from tests.support.working import ended, working
from tests.support.writes import WRITES, Write, answer, child, children, signal, step

MARK = "the answer to this is lost"
MARKING = f"""
CREATE SEQUENCE marks START 1;
CREATE FUNCTION mark_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF nextval('public.marks') = 1 THEN
    RAISE NOTICE '{MARK}';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER mark_event BEFORE INSERT ON ledger.event
  FOR EACH ROW WHEN (NEW.type = '%s') EXECUTE FUNCTION mark_event();
"""
RUNS = "SELECT count(*) FROM ledger.run_state"
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have writes made again soon."""
    for module in (ending, recorder):
        monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    monkeypatch.setenv("RUNFOLD_HELD_SLEEP_SECONDS", "1")


@pytest.fixture
async def proxy(database: str) -> AsyncIterator[Proxy]:
    async with proxied(database) as made:
        made.lose_marked(MARK.encode())
        yield made


@handler("last")
async def last(_: Context) -> str:
    """Begin with a beat, for there is no other attempt to lose."""
    return "paid"


ALL = (
    *WRITES,
    Write(step, "lease.acquired"),
    Write(last, "lease.heartbeat"),
    Write(child, "tool.completed"),
    Write(children, "tool.completed"),
)


@pytest.mark.slow
async def test_a_write_whose_answer_is_lost_is_on_record_once(
    database: str, ledger: Ledger, connection: Connection, subtests: pytest.Subtests
) -> None:
    for kind, writes in groupby(sorted(ALL, key=_kind), _kind):
        before = await connection.fetchval(RUNS)
        same = list(writes)
        undisturbed = await story(ledger, ledger, same[0])
        runs = await connection.fetchval(RUNS) - before
        for write in same:
            with subtests.test(f"{kind}-{write.type}"):
                async with proxied(database) as proxy:
                    proxy.lose_marked(MARK.encode())
                    await _lost_once(
                        ledger, connection, proxy, write, undisturbed=[*undisturbed], runs=runs
                    )


def _kind(write: Write) -> str:
    return write.handler.kind


async def _lost_once(
    ledger: Ledger,
    connection: Connection,
    proxy: Proxy,
    write: Write,
    *,
    undisturbed: list[str],
    runs: int,
) -> None:
    """Fail unless a run whose write is disturbed has the same story, and as many runs."""
    before = await connection.fetchval(RUNS)
    async with Ledger.open(proxy.url, PROJECT) as far:
        try:
            disturbed = await story(ledger, far, write, marked=connection)
        finally:
            await connection.execute("DROP FUNCTION mark_event CASCADE; DROP SEQUENCE marks")

    assert proxy.lost == 1
    assert await connection.fetchval(RUNS) - before == runs
    if write.type == "lease.acquired":  # the worker gave back what it did not know it held
        undisturbed[1:1] = ["lease.acquired", "lease.released"]
    if write.handler is last:  # nor does it begin what may not be on record as begun
        undisturbed[1:1] = ["lease.acquired", "lease.released"]
    assert disturbed == undisturbed


async def test_a_beat_of_the_heart_whose_answer_is_lost_keeps_its_lease(
    ledger: Ledger, connection: Connection, proxy: Proxy
) -> None:
    @handler("long")
    async def long(ctx: Context) -> str:
        await ctx.heartbeat()
        await until(lambda: proxy.lost)
        await ctx.heartbeat()
        await until(lambda: connection.fetchval("SELECT last_value > 1 FROM marks"))
        return "paid"

    await connection.execute(MARKING % "lease.heartbeat")
    async with Ledger.open(proxy.url, PROJECT) as far:
        happened = await story(ledger, far, Write(long, "lease.heartbeat"))
    await connection.execute("DROP FUNCTION mark_event CASCADE")

    assert happened == ["run.submitted", "lease.acquired", "run.completed"]


async def story(
    ledger: Ledger, far: Ledger, write: Write, *, marked: Connection | None = None
) -> list[str]:
    """Have a worker do a run over the far ledger; return what happened, without its beats.

    The first event of the write's type is marked over the connection, if there is one.
    """
    most = 1 if write.handler is last else 2
    run = await ledger.submit(write.handler.kind, max_attempts=most)
    if write.handler is signal:
        await ledger.signal(run.run_id, "pay", "paid")
    if marked is not None:
        await marked.execute(MARKING % write.type)
    async with working(far, *{step, write.handler}, concurrency=1):
        await answer(ledger, run, write.handler)
        run = await ended(ledger, run)
    assert (run.state, run.attempt_count) == (write.state, write.attempts)
    happened = [each for each in await types(ledger, run.run_id) if "heartbeat" not in each]
    if write.handler is children:  # whose outputs are taken together or one by one, as they come
        return [each for each, _ in groupby(happened)]
    return happened
