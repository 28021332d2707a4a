"""Whatever is the database's or the deployment's doing ends no run, and replaces no success."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TypeAlias

import asyncpg
import pytest

from runfold import Context, Ledger, Run, State, handler
from runfold.ledger.errors import DatabaseUnavailable
from runfold.ledger.events import RunFailed
from runfold.ledger.lifecycle import OUTPUT_REFUSED
from runfold.ledger.postgres.errors import translated
from runfold.workers import ending, slots
from runfold.workers.journal import recorder
from runfold.workers.leases.deadline import judged
from tests.support.runs import newest, types
from tests.support.waiting import BOUND, until
from tests.support.working import ended, working
from tests.support.writes import WRITES, Write, answer, child, children, retry, signal, step

CODES = (
    "08006", "0A000", "23503", "23505", "23514", "25006", "26000", "28000", "28P01", "2F000",
    "3D000", "3F000", "40001", "40P01", "42501", "42601", "42883", "42P01", "42P05", "53300",
    "54000", "55000", "55P03", "57014", "57P01", "58030", "P0001", "RF001", "RF401", "RF403",
    "RF404", "RF406", "XX000",
)  # fmt: skip
"""One SQLSTATE of each class that a server in trouble, an upgrade or a rotation may raise."""
REFUSING = """
CREATE SEQUENCE refusals START 1;
CREATE TABLE refusing (type text, kind text, codes text[]);
CREATE FUNCTION refuse_event() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  codes text[] := (SELECT r.codes FROM public.refusing AS r WHERE r.type = NEW.type AND
    (r.kind IS NULL OR r.kind = (SELECT s.kind FROM ledger.run_state AS s
      WHERE (s.project_id, s.run_id) = (NEW.project_id, NEW.run_id))));
BEGIN
  IF codes IS NOT NULL THEN
    RAISE EXCEPTION 'refused for a test'
      USING ERRCODE = codes[1 + nextval('public.refusals') % cardinality(codes)];
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER refuse_event BEFORE INSERT ON ledger.event
  FOR EACH ROW EXECUTE FUNCTION refuse_event();
"""
NO_LONGER_REFUSING = """
DROP FUNCTION refuse_event CASCADE;
DROP TABLE refusing;
DROP SEQUENCE refusals;
"""
ALL_HAVE_REFUSED = "SELECT last_value >= $1 FROM refusals"
OFTEN = 0.01
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@handler("poor")
async def poor_step(_: Context) -> str:
    return "paid"


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have refused writes made again at once, so that every code has its turn."""
    for module in (ending, recorder):
        monkeypatch.setattr(module, "RETRY_SECONDS", OFTEN)
    monkeypatch.setenv("RUNFOLD_HELD_SLEEP_SECONDS", "1")
    monkeypatch.setenv("RUNFOLD_HEARTBEAT_SECONDS", "0.1")


@pytest.mark.slow
@pytest.mark.usefixtures("often")
async def test_a_refusal_of_the_server_is_waited_for_and_the_outcome_is_kept(
    ledger: Ledger, connection: Connection, subtests: pytest.Subtests
) -> None:
    for write in WRITES:
        with subtests.test(f"{write.handler.kind}-{write.type}"):
            try:
                await _waited_for(ledger, connection, write)
            finally:
                await connection.execute(NO_LONGER_REFUSING)


async def _waited_for(ledger: Ledger, connection: Connection, write: Write) -> None:
    run = await ledger.submit(write.handler.kind)
    if write.handler is signal:
        await ledger.signal(run.run_id, "pay", "paid")
    await refuse(connection, write.type, CODES)
    async with working(ledger, write.handler):
        await until(lambda: connection.fetchval(ALL_HAVE_REFUSED, len(CODES)))
        await connection.execute("TRUNCATE refusing")
        await answer(ledger, run, write.handler)
        async with working(ledger, step):  # the children's, which end no earlier
            run = await ended(ledger, run)

    assert (run.state, run.attempt_count) == (write.state, write.attempts)
    assert run.output == ("paid" if write.state is State.COMPLETED else None)
    assert run.cost_usd == (1 if write.handler is retry else 0)
    happened = await types(ledger, run.run_id)
    assert not {"lease.expired", "write.refused"} & set(happened)
    # A child may end before its parent waits, which then keeps its lease: so may each of several.
    least = 1 if write.handler in {child, children} else 1 + write.again
    assert least <= happened.count("lease.acquired") <= 1 + write.again


@pytest.mark.usefixtures("often")
async def test_claims_beats_and_giving_back_that_the_server_refuses_are_made_again(
    ledger: Ledger, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "GIVE_BACK_SECONDS", BOUND)
    begun = asyncio.Event()

    @handler("endless")
    async def endless(_: Context) -> None:
        begun.set()
        await asyncio.Event().wait()

    async def all_refused() -> None:
        await until(lambda: connection.fetchval(ALL_HAVE_REFUSED, len(CODES)))
        await connection.execute("TRUNCATE refusing; ALTER SEQUENCE refusals RESTART")

    run = await ledger.submit("endless")
    await refuse(connection, "lease.acquired", CODES)
    async with working(ledger, endless, poll=OFTEN, grace=0) as worker:
        await all_refused()
        await begun.wait()
        await connection.execute("INSERT INTO refusing VALUES ('lease.heartbeat', NULL, $1)", CODES)
        await all_refused()
        await until(lambda: beaten(ledger, run))
        await connection.execute("INSERT INTO refusing VALUES ('lease.released', NULL, $1)", CODES)
        worker.stop()
        await all_refused()
    await connection.execute("DROP FUNCTION refuse_event CASCADE")

    run = await ledger.get(run.run_id)
    assert (run.state, run.attempt_count, worker.left) == (State.PENDING, 0, [])
    assert set(await types(ledger, run.run_id)) == {
        "run.submitted", "lease.acquired", "lease.heartbeat", "lease.released",
    }  # fmt: skip


def test_every_error_of_the_server_but_one_of_data_is_waited_for() -> None:
    errors = [each for each in vars(asyncpg.exceptions).values() if _is_of_the_server(each)]
    assert len(errors) > 200
    ends = {each.sqlstate for each in errors if not _is_waited_for(each("refused for a test"))}
    assert {state[:2] for state in ends} == {"22"}


def _is_of_the_server(found: object) -> bool:
    return (
        isinstance(found, type)
        and issubclass(found, asyncpg.PostgresError)
        and getattr(found, "sqlstate", None) is not None
    )


def _is_waited_for(error: asyncpg.PostgresError) -> bool:
    return isinstance(judged(translated(error)), DatabaseUnavailable)


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("code", ["22000", "22003"])
async def test_an_output_that_the_server_cannot_hold_is_refused_as_such(
    ledger: Ledger, connection: Connection, code: str
) -> None:
    run = await ledger.submit("step")
    await refuse(connection, "run.completed", [code])
    async with working(ledger, step):
        run = await ended(ledger, run)
    await connection.execute("DROP FUNCTION refuse_event CASCADE")

    failed = await newest(ledger, run.run_id, RunFailed)
    assert (run.state, failed.error_code) == (State.FAILED, OUTPUT_REFUSED)
    assert code in str(failed.error_detail)


async def test_a_refused_move_does_not_hold_up_those_that_share_its_statement(
    ledger: Ledger, connection: Connection
) -> None:
    await refuse(connection, "run.completed", ["42501"])
    await connection.execute("UPDATE refusing SET kind = 'poor'")
    poor = await ledger.submit("poor")
    async with working(ledger, poor_step, step):
        runs = await ledger.submit_many([{"kind": "step"}] * 20)
        for submitted in runs:
            assert (await ended(ledger, submitted.run_id)).state is State.COMPLETED
        assert (await ledger.get(poor.run_id)).state is State.RUNNING
        await connection.execute("TRUNCATE refusing")
        assert (await ended(ledger, poor)).output == "paid"
    await connection.execute("DROP FUNCTION refuse_event CASCADE")


async def beaten(ledger: Ledger, run: Run) -> bool:
    """Whether a beat for the run is on record."""
    return "lease.heartbeat" in await types(ledger, run.run_id)


async def refuse(connection: Connection, type_: str, codes: Sequence[str]) -> None:
    """Have the server refuse every event of a type, with one code after the other."""
    await connection.execute(REFUSING)
    await connection.execute("INSERT INTO refusing VALUES ($1, NULL, $2)", type_, codes)
