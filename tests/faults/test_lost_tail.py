"""After a fail-over that lost a tail, a worker may be given the number of a lease that it held."""

from __future__ import annotations

import asyncio
import threading

import asyncpg

from runfold import BlockingContext, Ledger, handler
from tests.support.runs import types
from tests.support.waiting import BOUND
from tests.support.working import ended, working

TABLES = ("run_state", "low_water")
LOSE_TAIL = """
DO $$
DECLARE
  guard record;
BEGIN
  CREATE TEMPORARY TABLE guards AS SELECT tgrelid::regclass AS relation, tgname FROM pg_trigger
    WHERE NOT tgisinternal AND tgparentid = 0 AND (tgrelid IN ('ledger.run_state'::regclass,
      'ledger.event'::regclass, 'ledger.low_water'::regclass)
      OR tgrelid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'ledger.event'::regclass));
  FOR guard IN SELECT * FROM guards LOOP
    EXECUTE format('ALTER TABLE %s DISABLE TRIGGER %I', guard.relation, guard.tgname);
  END LOOP;
  DELETE FROM ledger.event WHERE version > 1;
  DELETE FROM ledger.run_state;
  INSERT INTO ledger.run_state SELECT * FROM public.run_state;
  DELETE FROM ledger.low_water;
  INSERT INTO ledger.low_water SELECT * FROM public.low_water;
  FOR guard IN SELECT * FROM guards LOOP
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', guard.relation, guard.tgname);
  END LOOP;
END $$
"""
"""Leaves the ledger as a standby has it that did not hear of anything after the submit."""


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
    for table in TABLES:
        await connection.execute(f"CREATE TABLE public.{table} AS TABLE ledger.{table}")
    async with working(ledger, pay, concurrency=2):
        await first.wait()
        await connection.execute(LOSE_TAIL)
        done = await ended(ledger, run)

    assert (done.output, done.attempt_count) == ("paid by the second", 1)
    assert [name for name in await types(ledger, run.run_id) if name != "lease.heartbeat"] == [
        "run.submitted", "lease.acquired", "lease.released", "lease.acquired", "step.completed",
        "run.completed",
    ]  # fmt: skip
