"""Low-water marks: whatever lies before them is dead, and whatever comes late moves them back."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from runfold.ledger import Ledger, State, Submit
from runfold.ledger.postgres.urls import driver_url
from tests.conftest import PROJECT
from tests.support.runs import claimed
from tests.support.waiting import blocked, lapsed

MOVE = "SELECT ledger.move_low_water($1, ARRAY[$2], '-1 day', '0')"
MARK = (PROJECT, "parse")
HOLD = "SELECT ledger.marks_hold($1, $2)"
SUBMIT = """
SELECT run_id FROM ledger.submit($1, 'test', ARRAY[$2], NULL, NULL, ARRAY[$3::int], NULL, '{3}',
  NULL, NULL, NULL)
"""
CLAIM = "SELECT run_id, token FROM ledger.claim($1, 'w:1', ARRAY[$2], $3, '60 seconds')"
# With a mark of its own, so that it moves none, and holds none while its transaction is open.
MARKED_CLAIM = CLAIM.replace(
    "'60 seconds')", f"'60 seconds', ARRAY[$2], '{{0}}', '{{{UUID(int=0)}}}', '{{NULL}}')"
)
GIVE_BACK = """
SELECT version FROM ledger.requeue($1, 'lease.released', ARRAY[$2::uuid], ARRAY[$3::int], '{0}',
  NULL, NULL, '{w:1}')
"""
FOUND = "SELECT run_id FROM ledger.leases($1, $2, $3) ORDER BY run_id"
HELD = """
SELECT run_id FROM ledger.run_state WHERE project_id = $1 AND kind = $2 AND token IS NOT NULL
ORDER BY run_id
"""


@pytest.fixture
async def other(database: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A caller of the functions that leaves its transactions open."""
    connection = await asyncpg.connect(driver_url(database))
    yield connection
    await connection.close()


async def move(connection: asyncpg.Connection[Any], *, times: int = 2, kind: str = "parse") -> None:
    """Move the marks of a kind, as far as what is seen allows."""
    for _ in range(times):
        await connection.execute(MOVE, PROJECT, kind)


async def mark_of(connection: asyncpg.Connection[Any]) -> Any:
    """Return the marks as they are now."""
    return await connection.fetchrow("SELECT * FROM ledger.low_water WHERE kind = 'parse'")


async def claims(connection: asyncpg.Connection[Any], limit: int = 100) -> list[UUID]:
    """Claim without marks of one's own."""
    return [row["run_id"] for row in await connection.fetch(CLAIM, PROJECT, "parse", limit)]


async def test_a_run_whose_transaction_was_open_while_the_marks_moved_is_claimed(
    ledger: Ledger, connection: asyncpg.Connection[Any], other: asyncpg.Connection[Any]
) -> None:
    transaction = other.transaction()
    await transaction.start()
    late = await other.fetchval(SUBMIT, PROJECT, "parse", 0)
    newer = await ledger.submit_many([Submit(kind="parse")] * 3)
    assert len(await claims(connection, 2)) == 2
    await move(connection, times=3)
    mark = await mark_of(connection)

    assert mark["runs"] == [newer[2].run_id]
    assert late < newer[2].run_id
    await transaction.commit()

    assert await claims(connection) == [late, newer[2].run_id]


async def test_a_late_run_hides_none_that_waits_in_its_priority(
    ledger: Ledger, connection: asyncpg.Connection[Any], other: asyncpg.Connection[Any]
) -> None:
    nearest = await ledger.submit("parse")  # no walk goes on to a priority after this
    waiting = await ledger.submit("parse", priority=3)
    transaction = other.transaction()
    await transaction.start()
    late = await other.fetchval(SUBMIT, PROJECT, "parse", 3)
    await move(connection, times=3)
    await transaction.commit()
    await move(connection)

    assert (await mark_of(connection))["priorities"] == [0, 3]
    assert await claims(connection) == [nearest.run_id, waiting.run_id, late]


async def test_a_lease_whose_claim_was_open_while_the_marks_moved_is_reaped(
    ledger: Ledger, connection: asyncpg.Connection[Any], other: asyncpg.Connection[Any]
) -> None:
    late = await ledger.submit("parse")
    transaction = other.transaction()
    await transaction.start()
    await other.fetch(MARKED_CLAIM.replace("60 seconds", "1 ms"), PROJECT, "parse", 1)
    newer = await claimed(ledger)
    await move(connection, times=3)
    mark = await mark_of(connection)
    assert mark["leases_after"] > 0
    assert mark["older_leases"] == [newer.run_id]
    await transaction.commit()

    [reaped] = await ledger.reap()

    assert reaped.run_id == late.run_id


async def test_a_lease_that_is_held_for_long_is_reaped_when_it_lapses(
    ledger: Ledger, connection: asyncpg.Connection[Any]
) -> None:
    lease = await claimed(ledger, ttl=0.02)
    await move(connection, times=4)

    await lapsed(ledger, lease)
    [reaped] = await ledger.reap()

    assert reaped.run_id == lease.run_id


async def test_a_run_that_was_given_back_before_the_marks_is_claimed(
    ledger: Ledger, connection: asyncpg.Connection[Any], other: asyncpg.Connection[Any]
) -> None:
    one, two = await claimed(ledger), await claimed(ledger)
    transaction = other.transaction()
    await transaction.start()
    await other.fetch(GIVE_BACK, PROJECT, one.run_id, one.token)
    await ledger.release(two)
    assert await claims(connection) == [two.run_id]
    await move(connection, times=3)
    await transaction.commit()

    assert await claims(connection) == [one.run_id]


@pytest.mark.parametrize(
    "ahead",
    [
        "seen_position = 1000000",
        "seen_at = seen_at + interval '1 hour'",
        "seen_clock = seen_clock + interval '1 hour'",
    ],
)
async def test_marks_begin_anew_where_a_clock_or_a_sequence_was_set_back(
    ledger: Ledger, connection: asyncpg.Connection[Any], ahead: str
) -> None:
    await ledger.submit("parse")
    await move(connection)
    await connection.execute(f"UPDATE ledger.low_water SET leases_after = 1000000, {ahead}")

    await connection.execute(MOVE, PROJECT, "parse")

    mark = await mark_of(connection)
    assert mark["leases_after"] == 0
    assert mark["runs"] == [UUID(int=0)]


async def test_a_sweep_moves_the_marks_once_in_a_second(
    ledger: Ledger, connection: asyncpg.Connection[Any]
) -> None:
    await ledger.submit("parse")

    await ledger.reap()
    await ledger.reap()
    assert (await mark_of(connection))["number"] == 1

    await connection.execute("UPDATE ledger.low_water SET seen_at = seen_at - interval '2 s'")
    await ledger.reap()
    mark = await mark_of(connection)
    assert (mark["number"], mark["leases_after"]) == (2, 1)


async def test_marks_of_many_old_leases_move_less_often(
    ledger: Ledger, connection: asyncpg.Connection[Any]
) -> None:
    await claimed(ledger)
    await move(connection)
    number = (await mark_of(connection))["number"]
    await connection.execute(
        "UPDATE ledger.low_water SET seen_at = seen_at - interval '4 s',"
        " older_leases = array_fill(older_leases[1], '{1000}')"
    )

    await ledger.reap()
    assert (await mark_of(connection))["number"] == number

    await connection.execute("UPDATE ledger.low_water SET seen_at = seen_at - interval '4 s'")
    await ledger.reap()
    assert (await mark_of(connection))["number"] == number + 1


async def test_a_caller_that_comes_late_to_a_mark_leaves_it_to_those_who_moved_it(
    ledger: Ledger, connection: asyncpg.Connection[Any], other: asyncpg.Connection[Any]
) -> None:
    await claimed(ledger)
    await ledger.submit("slow")
    await move(connection, times=3)
    await move(connection, kind="slow")
    await connection.execute(
        "CREATE FUNCTION pause() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END';"
        " CREATE TRIGGER pause AFTER INSERT ON ledger.low_water FOR EACH ROW"
        " WHEN (NEW.kind = 'slow') EXECUTE FUNCTION pause()"
    )

    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(1)")
        # It has read the clock, and waits before it comes to the last kind, which others move.
        late = asyncio.create_task(other.execute(MOVE.replace("[$2]", "['slow', $2]"), *MARK))
        await blocked(ledger, other.get_server_pid())
        await ledger.submit("parse")
        await ledger.pool.execute(MOVE, *MARK)
        moved = await mark_of(connection)
    await late

    await connection.execute("DROP FUNCTION pause CASCADE")
    assert await mark_of(connection) == moved
    assert moved["leases_after"] > 0


async def test_a_rebase_of_the_feed_forgets_the_marks(
    ledger: Ledger, connection: asyncpg.Connection[Any]
) -> None:
    await ledger.submit("parse")
    await move(connection)

    await connection.execute("SELECT ledger.feed_rebase()")

    assert await connection.fetchval("SELECT count(*) FROM ledger.low_water") == 0


class Callers:
    """Some that commit at once, and some that leave a transaction open; all claim and give back."""

    def __init__(self, seed: int, connections: list[asyncpg.Connection[Any]]) -> None:
        self.chance = random.Random(seed)  # noqa: S311  no secret
        self.at_once, *self.slow = connections
        self.open: dict[asyncpg.Connection[Any], Any] = {}
        self.held: dict[asyncpg.Connection[Any], list[tuple[UUID, int]]] = {
            caller: [] for caller in connections
        }

    async def act(self) -> None:
        """Let one of them do something."""
        caller = self.chance.choice([self.at_once, *self.slow])
        if caller is not self.at_once and caller not in self.open:
            self.open[caller] = caller.transaction()
            await self.open[caller].start()
        match self.chance.choice(["submit", "submit", "claim", "give back", "end"]):
            case "submit":
                await caller.fetch(SUBMIT, PROJECT, "parse", self.chance.choice([0, 0, 3]))
            case "claim":
                claim = self.chance.choice([CLAIM, MARKED_CLAIM])
                rows = await caller.fetch(claim, PROJECT, "parse", self.chance.randint(1, 2))
                self.held[caller] += [(row["run_id"], row["token"]) for row in rows]
            case "give back" if self.held[caller]:
                lease = self.held[caller].pop(self.chance.randrange(len(self.held[caller])))
                await caller.fetch(GIVE_BACK, PROJECT, *lease)
            case "end" if caller in self.open:
                await self.finish(caller)

    async def finish(self, caller: asyncpg.Connection[Any]) -> None:
        """End an open transaction, for good or not."""
        transaction = self.open.pop(caller)
        if self.chance.random() < 0.8:
            await transaction.commit()
            self.held[self.at_once] += self.held[caller]
        else:
            await transaction.rollback()
        self.held[caller] = []


@pytest.mark.parametrize("seed", range(4))
async def test_no_run_and_no_lease_is_lost_behind_a_mark(
    ledger: Ledger, connection: asyncpg.Connection[Any], database: str, seed: int
) -> None:
    await ledger.submit("parse")
    async with AsyncExitStack() as stack:
        slow = [await asyncpg.connect(driver_url(database)) for _ in range(2)]
        for one in slow:
            stack.push_async_callback(one.close)
        callers = Callers(seed, [connection, *slow])
        for step in range(120):
            await callers.act()
            if step % 4 == 0:
                await move(connection, times=1)
                marked = await connection.fetchval(HOLD, PROJECT, "parse")
                found = await connection.fetch(FOUND, PROJECT, "parse", marked)
                assert found == await connection.fetch(HELD, PROJECT, "parse")
        for caller in list(callers.open):
            await callers.finish(caller)
    waiting = {run.run_id for run in await ledger.runs(state=State.PENDING, limit=1000)}

    assert waiting
    assert set(await claims(connection, 1000)) == waiting


@pytest.mark.parametrize(
    ("change", "walk", "hidden"),
    [
        ("leases_after = 1000000, older_leases = '{}'", "sweeps", 1),
        ("runs = ARRAY['ffffffff-ffff-7fff-bfff-ffffffffffff']::uuid[]", "claims", 3),
        ("dues = '{infinity}'", "claims", 1),
    ],
)
async def test_verify_names_a_run_that_a_mark_hides(
    unverified_database: str, change: str, walk: str, hidden: int
) -> None:
    connection = await asyncpg.connect(driver_url(unverified_database))
    async with Ledger.open(unverified_database, PROJECT) as ledger:
        first = await claimed(ledger)
        await claimed(ledger)
        await ledger.release(first)
        await ledger.submit_many([Submit(kind="parse")] * 3)
        await move(connection)
        assert (await ledger.verify()).ok

        await connection.execute(f"UPDATE ledger.low_water SET {change}")
        report = await ledger.verify()
    await connection.close()

    [finding] = report.findings
    assert f"mark of 'parse': {walk} pass over it and {hidden - 1} more" in finding.detail
