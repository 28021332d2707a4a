"""A fail-over that lost a tail: of a lease that a worker held, or of what it wrote under one."""

from __future__ import annotations

import asyncio
import threading

import asyncpg
import pytest
from structlog.testing import capture_logs

from runfold import BlockingContext, Context, Ledger, handler
from runfold.ledger import names
from tests.support.databases import PROJECT
from tests.support.proxy import proxied
from tests.support.runs import types
from tests.support.waiting import BOUND, until
from tests.support.working import ended, working

TABLES = ("run_state", "low_water")
LOSE_TAIL = """
DO $$
DECLARE
  guard record;
BEGIN
  CREATE TEMPORARY TABLE guards AS SELECT tgrelid::regclass AS relation, tgname FROM pg_trigger
    WHERE NOT tgisinternal AND tgparentid = 0 AND (tgrelid IN ('ledger.run_state'::regclass,
      'ledger.event'::regclass, 'ledger.low_water'::regclass, 'ledger.payload'::regclass,
      'ledger.command'::regclass) OR tgrelid IN (SELECT inhrelid FROM pg_inherits
      WHERE inhparent IN ('ledger.event'::regclass, 'ledger.payload'::regclass)));
  FOR guard IN SELECT * FROM guards LOOP
    EXECUTE format('ALTER TABLE %s DISABLE TRIGGER %I', guard.relation, guard.tgname);
  END LOOP;
  DELETE FROM ledger.event WHERE version > KEPT;
  DELETE FROM ledger.payload WHERE version > KEPT;
  DELETE FROM ledger.command WHERE version > KEPT;
  DELETE FROM ledger.run_state;
  INSERT INTO ledger.run_state SELECT * FROM public.run_state;
  DELETE FROM ledger.low_water;
  INSERT INTO ledger.low_water SELECT * FROM public.low_water;
  FOR guard IN SELECT * FROM guards LOOP
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', guard.relation, guard.tgname);
  END LOOP;
END $$
"""
"""Leaves the ledger as a standby has it that heard of nothing after a version of each run."""


async def remember(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Keep what the standby has heard of so far."""
    for table in TABLES:
        await connection.execute(f"CREATE TABLE public.{table} AS TABLE ledger.{table}")


async def test_a_worker_knows_the_lease_of_a_lost_tail_from_a_new_one_of_the_same_number(
    ledger: Ledger,
    connection: asyncpg.Connection[asyncpg.Record],
) -> None:
    calls: list[int] = []
    first = asyncio.Event()
    goes_on, is_over = threading.Event(), threading.Event()
    home = asyncio.get_running_loop()

    @handler("pay")
    def pay(ctx: BlockingContext) -> str:
        """Work in a thread, which nothing interrupts before its next call."""
        calls.append(ctx.attempt)
        if len(calls) > 1:
            goes_on.set()
            assert is_over.wait(BOUND)
            return ctx.step("pay", lambda: "paid by the second")
        home.call_soon_threadsafe(first.set)
        try:
            assert goes_on.wait(BOUND)
            return ctx.step("pay", lambda: "paid by the first")
        finally:
            is_over.set()

    run = await ledger.submit("pay")
    await remember(connection)
    async with working(ledger, pay, concurrency=2):
        await first.wait()
        await connection.execute(LOSE_TAIL.replace("KEPT", "1"))
        done = await ended(ledger, run)

    assert (done.output, done.attempt_count) == ("paid by the second", 1)
    assert [name for name in await types(ledger, run.run_id) if name != "lease.heartbeat"] == [
        "run.submitted", "lease.acquired", "lease.released", "lease.acquired", "step.completed",
        "run.completed",
    ]  # fmt: skip


@pytest.mark.parametrize("at_once", [False, True])
async def test_a_worker_writes_nothing_after_calls_that_the_lost_tail_took(
    database: str,
    ledger: Ledger,
    connection: asyncpg.Connection[asyncpg.Record],
    *,
    at_once: bool,
) -> None:
    called, heard, paid, goes_on = [asyncio.Event() for _ in range(4)]

    @handler("pay")
    async def pay(ctx: Context) -> list[int]:
        called.set()
        await heard.wait()
        first = await ctx.step("pay", lambda: 1)
        paid.set()
        await goes_on.wait()
        return [first, await ctx.step("tell", lambda: 2)]

    run = await ledger.submit("pay")
    with capture_logs() as logs:

        def has_said(event: str) -> bool:
            return event in {line["event"] for line in logs}

        async with (
            proxied(database) as proxy,
            Ledger.open(proxy.url, PROJECT) as far,
            working(far, pay),
        ):
            await called.wait()
            await remember(connection)  # the lease was heard of, what follows is not
            heard.set()
            await paid.wait()
            if at_once:  # the standby takes over before a write fails
                await connection.execute(LOSE_TAIL.replace("KEPT", "2"))
                proxy.reset()
                goes_on.set()
            else:
                proxy.refusing = True
                proxy.reset()
                goes_on.set()
                await until(lambda: has_said(names.WRITE_POSTPONED))
                await connection.execute(LOSE_TAIL.replace("KEPT", "2"))
                proxy.refusing = False
            done = await ended(ledger, run)
        assert has_said(names.TAIL_LOST)

    assert (done.output, done.attempt_count) == ([1, 2], 1)
    assert [name for name in await types(ledger, run.run_id) if name != "lease.heartbeat"] == [
        "run.submitted", "lease.acquired", "lease.released", "lease.acquired", "step.completed",
        "step.completed", "run.completed",
    ]  # fmt: skip
