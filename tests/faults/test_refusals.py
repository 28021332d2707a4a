"""Whatever is the database's or the deployment's doing ends no run, and replaces no success."""

from __future__ import annotations

import asyncpg
import pytest

from runfold import Context, Ledger, State, handler
from tests.support.runs import types
from tests.support.waiting import until
from tests.support.working import ended, working

TRIES = 3
CODES = (
    "08006", "0A000", "25006", "28000", "3D000", "3F000", "40001", "40P01", "42501", "42601",
    "42883", "42P01", "53300", "55000", "55P03", "57014", "57P01", "58030", "XX000",
)  # fmt: skip
"""One SQLSTATE of each class that a server in trouble, an upgrade or a rotation may raise."""
REFUSING = """
CREATE SEQUENCE refusals;
CREATE TABLE refusing (type text, code text);
CREATE FUNCTION refuse_event() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  refused text := (SELECT r.code FROM public.refusing AS r WHERE r.type = NEW.type);
BEGIN
  IF refused IS NOT NULL THEN
    PERFORM nextval('public.refusals');
    RAISE EXCEPTION 'refused for a test' USING ERRCODE = refused;
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER refuse_event BEFORE INSERT ON ledger.event
  FOR EACH ROW EXECUTE FUNCTION refuse_event();
"""


@handler("refund")
async def refund(ctx: Context) -> str:
    return await ctx.step("pay", lambda: "paid")


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("type_", ["step.completed", "run.completed"])
async def test_a_refusal_of_the_server_is_waited_for_and_the_success_is_kept(
    ledger: Ledger, connection: asyncpg.Connection[asyncpg.Record], type_: str, code: str
) -> None:
    await connection.execute(REFUSING)
    await connection.execute("INSERT INTO refusing VALUES ($1, $2)", type_, code)
    run = await ledger.submit("refund")
    async with working(ledger, refund):
        await until(lambda: connection.fetchval("SELECT last_value >= $1 FROM refusals", TRIES), 20)
        await connection.execute("TRUNCATE refusing")
        run = await ended(ledger, run)
    await connection.execute("DROP FUNCTION refuse_event CASCADE")

    assert (run.state, run.output, run.attempt_count) == (State.COMPLETED, "paid", 1)
    assert await types(ledger, run.run_id) == [
        "run.submitted", "lease.acquired", "step.completed", "run.completed",
    ]  # fmt: skip
