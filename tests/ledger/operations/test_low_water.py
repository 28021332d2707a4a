"""Low-water marks: whatever lies before them is dead, and whatever comes late moves them back."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from runfold.ledger import Ledger, State, Submit
from runfold.ledger.operations.reap import pulse
from runfold.ledger.postgres.clock import ledger_now
from runfold.ledger.postgres.urls import driver_url
from tests.support.clock import set_clock, set_walking_clock
from tests.support.databases import PROJECT
from tests.support.runs import claimed, waiting
from tests.support.waiting import blocked, lapsed, passed

TICK = timedelta(milliseconds=1)
MOVE = "SELECT ledger.move_low_water($1, ARRAY[$2], '-1 day', '0')"
MARK = (PROJECT, "parse")
HOLD = "SELECT ledger.marks_hold($1, $2)"
HIDDEN = """
SELECT run_id FROM ledger.run_state AS run, ledger.sweep_start(project_id, kind) AS low
WHERE project_id = $1 AND completed_at IS NULL AND (least(deadline, wait_until) < low.ends_from
  OR token IS NULL AND cancel_requested_at IS NOT NULL AND moved_position <= low.cancels_after)
"""
OVERDUE = """
SELECT run_id FROM ledger.run_state WHERE project_id = $1 AND completed_at IS NULL AND (
  deadline <= now() OR wait_until <= now() OR token IS NULL AND cancel_requested_at IS NOT NULL)
ORDER BY run_id
"""
CLAIMABLE = "SELECT run_id FROM ledger.run_state WHERE project_id = $1 AND available_at <= now()"
PARK = """
SELECT run_id FROM ledger.transition($1, '{NULL}', ARRAY[$2::uuid], ARRAY[$3::int],
  '{waiting_tool}', '{true}', '{ask}', '{NULL}', '{NULL}', '{NULL}', '{NULL}', '{NULL}',
  ARRAY[$4::interval], '{NULL}', '{NULL}', '{NULL}', '{w:1}')
"""
ANSWER = """
SELECT run_id FROM ledger.transition($1, '{ann}', ARRAY[$2::uuid], '{NULL}', '{running}', '{NULL}',
  '{ask}', '{NULL}', '{NULL}', '{NULL}', '{NULL}', '{NULL}', '{NULL}', '{NULL}', '{NULL}', '{NULL}')
"""
CANCEL = "SELECT ledger.cancel($1, 'ann', ARRAY[$2::uuid], NULL)"
PARKED = "SELECT run_id FROM ledger.parked_runs($1) AS run_id"
WAITING = """
SELECT run_id FROM ledger.run_state WHERE project_id = $1 AND state = 'waiting_tool'
  AND token IS NULL AND available_at IS NULL AND cancel_requested_at IS NULL ORDER BY run_id
"""
SUBMIT = """
SELECT run_id FROM ledger.submit($1, 'test', ARRAY[$2], NULL, NULL, ARRAY[$3::int], NULL, '{3}',
  NULL, ARRAY[$4::interval], NULL)
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
    late = await other.fetchval(SUBMIT, PROJECT, "parse", 0, None)
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
    late = await other.fetchval(SUBMIT, PROJECT, "parse", 3, None)
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


async def test_a_deadline_that_passes_while_its_transaction_is_open_is_kept(
    ledger: Ledger, connection: asyncpg.Connection[Any], other: asyncpg.Connection[Any]
) -> None:
    transaction = other.transaction()
    await transaction.start()
    late = await other.fetchval(SUBMIT, PROJECT, "parse", 0, TICK)
    await ledger.submit("parse", deadline=0.001)
    await passed(ledger, await ledger_now(ledger.pool) + TICK)
    assert len(await ledger.reap()) == 1
    await move(connection, times=3)
    deadline = await other.fetchval("SELECT deadline FROM ledger.run_state WHERE run_id = $1", late)
    assert (await mark_of(connection))["ends_from"] > deadline
    await transaction.commit()

    [reaped] = await ledger.reap(leases=False)

    assert (reaped.run_id, reaped.state) == (late, State.CANCELLED)


async def test_what_a_reaper_has_locked_or_leaves_unfinished_is_due_for_the_next(
    ledger: Ledger, connection: asyncpg.Connection[Any], other: asyncpg.Connection[Any]
) -> None:
    due = [await ledger.submit("parse", deadline=0.001) for _ in range(2)]
    await passed(ledger, await ledger_now(ledger.pool) + TICK)
    transaction = other.transaction()
    await transaction.start()
    await other.execute("SELECT FROM ledger.run_state WHERE run_id = $1 FOR UPDATE", due[0].run_id)
    assert [run.run_id for run in await ledger.reap()] == [due[1].run_id]
    assert len(await other.fetch("SELECT * FROM ledger.reap($1, 'reaper', 9)", PROJECT)) == 1
    await move(connection, times=3)
    assert await ledger.reap() == []
    await transaction.rollback()

    assert [run.run_id for run in await ledger.reap()] == [due[0].run_id]


async def test_a_run_that_parks_after_its_cancel_was_asked_is_cancelled_whenever_it_commits(
    ledger: Ledger, connection: asyncpg.Connection[Any], other: asyncpg.Connection[Any]
) -> None:
    late, lease = await claimed(ledger), await claimed(ledger)
    for held in (late, lease):
        await ledger.cancel(held.run_id)
    transaction = other.transaction()
    await transaction.start()
    await other.fetch(PARK, PROJECT, late.run_id, late.token, None)
    await connection.fetch(PARK, PROJECT, lease.run_id, lease.token, None)
    await move(connection, times=3)
    due = (await pulse(ledger.project, None)).due
    assert due is not None
    assert (await pulse(ledger.project, due)).due is None, "no reaper is waked for it again"
    assert [run.run_id for run in await ledger.reap(leases=False)] == [lease.run_id]
    await move(connection, times=3)
    assert (await mark_of(connection))["cancels_after"] > 0
    assert (await pulse(ledger.project, None)).due is None
    await transaction.commit()

    assert (await pulse(ledger.project, None)).due is not None
    [reaped] = await ledger.reap(leases=False)
    assert (reaped.run_id, reaped.state) == (late.run_id, State.CANCELLED)


async def test_a_deadline_counts_again_when_an_earlier_wait_is_over(
    ledger: Ledger, connection: asyncpg.Connection[Any]
) -> None:
    run = await ledger.submit("parse", deadline=7_200)
    [lease] = await ledger.claim("w:1")
    await ledger.transition(lease, State.WAITING_TOOL, name="ask", park=True, wait=3_600)
    await move(connection, times=3)
    await ledger.transition(run.run_id, State.RUNNING, actor="ann", name="ask")
    await set_clock(connection, timedelta(hours=3))
    await move(connection, times=3)

    assert [reaped.run_id for reaped in await ledger.reap()] == [run.run_id]


async def test_a_run_that_parks_while_the_marks_move_and_one_that_stays_parked_are_both_swept(
    ledger: Ledger, connection: asyncpg.Connection[Any], other: asyncpg.Connection[Any]
) -> None:
    early, late = await claimed(ledger), await claimed(ledger)
    transaction = other.transaction()
    await transaction.start()
    await other.fetch(PARK, PROJECT, late.run_id, late.token, None)
    await connection.fetch(PARK, PROJECT, early.run_id, early.token, None)
    await move(connection, times=3)
    mark = await mark_of(connection)
    assert mark["older_parked"] == [early.run_id]
    await transaction.commit()

    both = [early.run_id, late.run_id]
    assert [row["run_id"] for row in await connection.fetch(PARKED, PROJECT)] == both
    await move(connection)
    assert sorted((await mark_of(connection))["older_parked"]) == both
    await connection.fetch(ANSWER, PROJECT, early.run_id)
    assert [row["run_id"] for row in await connection.fetch(PARKED, PROJECT)] == both[1:]
    await move(connection)
    assert (await mark_of(connection))["older_parked"] == both[1:]


async def test_a_parked_run_that_moved_on_is_swept_once_and_only_where_it_waits_again(
    ledger: Ledger, connection: asyncpg.Connection[Any], other: asyncpg.Connection[Any]
) -> None:
    called_off, answered, again = [await claimed(ledger) for _ in range(3)]
    for lease in (called_off, answered, again):
        await connection.fetch(PARK, PROJECT, lease.run_id, lease.token, None)
    await move(connection, times=3)
    await connection.fetch(ANSWER, PROJECT, again.run_id)
    [lease] = await ledger.claim("w:1")
    await connection.fetch(PARK, PROJECT, lease.run_id, lease.token, None)
    parked = [row["run_id"] for row in await connection.fetch(PARKED, PROJECT)]
    assert parked == [called_off.run_id, answered.run_id, again.run_id]

    transaction = other.transaction()
    await transaction.start()
    await other.fetch(ANSWER, PROJECT, called_off.run_id)
    [(run_id, token)] = await other.fetch(MARKED_CLAIM, PROJECT, "parse", 1)
    await other.fetch(CANCEL, PROJECT, run_id)
    await other.fetch(PARK, PROJECT, run_id, token, None)
    await other.fetch(ANSWER, PROJECT, answered.run_id)
    await move(connection, times=3)
    await transaction.commit()

    for _ in range(2):
        assert [row["run_id"] for row in await connection.fetch(PARKED, PROJECT)] == parked[2:]
        await move(connection)
        assert await connection.fetchval(HOLD, *MARK)


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
    assert not await connection.fetchval(HOLD, *MARK)

    await connection.execute(MOVE, PROJECT, "parse")

    mark = await mark_of(connection)
    assert mark["leases_after"] == 0
    assert mark["runs"] == [UUID(int=0)]
    assert mark["ends_from"].year == 1, "minus infinity"
    assert (mark["cancels_after"], mark["parked_after"]) == (0, 0)


async def test_a_sweep_moves_the_marks_once_in_a_second(
    ledger: Ledger, connection: asyncpg.Connection[Any]
) -> None:
    await set_walking_clock(connection, datetime.now(UTC), timedelta())
    await ledger.submit("parse")

    await ledger.reap()
    await ledger.reap()
    assert (await mark_of(connection))["number"] == 1

    await connection.execute("UPDATE ledger.low_water SET seen_at = seen_at - interval '2 s'")
    await ledger.reap()
    mark = await mark_of(connection)
    assert (mark["number"], mark["leases_after"]) == (2, 1)

    await connection.execute("UPDATE ledger.low_water SET open = ARRAY[pg_current_xact_id()]")
    await ledger.reap()
    assert (await mark_of(connection))["number"] == 3, "marks that do not hold are moved at once"


async def test_marks_leave_room_for_an_instant_that_was_chosen_a_while_before(
    ledger: Ledger, connection: asyncpg.Connection[Any]
) -> None:
    await ledger.submit("parse")
    in_use = MOVE.replace("'0'", "'1 second'")
    await connection.execute(in_use, *MARK)
    seen = (await mark_of(connection))["seen_at"]
    await connection.execute(in_use, *MARK)

    mark = await mark_of(connection)
    assert (mark["ends_from"], mark["dues"]) == (
        seen - timedelta(seconds=10),
        [seen - timedelta(seconds=10)],
    )


async def test_marks_of_many_old_leases_move_less_often(
    ledger: Ledger, connection: asyncpg.Connection[Any]
) -> None:
    await set_walking_clock(connection, datetime.now(UTC), timedelta())
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
        match self.chance.choice(["submit", "submit", "claim", "give back", "park", "end"]):
            case "submit":
                deadline = self.chance.choice([None, TICK, timedelta(hours=1)])
                priority = self.chance.choice([0, 0, 3])
                await caller.fetch(SUBMIT, PROJECT, "parse", priority, deadline)
            case "claim":
                claim = self.chance.choice([CLAIM, MARKED_CLAIM])
                rows = await caller.fetch(claim, PROJECT, "parse", self.chance.randint(1, 2))
                self.held[caller] += [(row["run_id"], row["token"]) for row in rows]
            case "give back" if self.held[caller]:
                lease = self.held[caller].pop(self.chance.randrange(len(self.held[caller])))
                await caller.fetch(GIVE_BACK, PROJECT, *lease)
            case "park" if self.held[caller]:
                lease = self.held[caller].pop(self.chance.randrange(len(self.held[caller])))
                if self.chance.random() < 0.3:
                    await caller.fetch(CANCEL, PROJECT, lease[0])
                await caller.fetch(PARK, PROJECT, *lease, self.chance.choice([None, TICK]))
                if self.chance.random() < 0.3:
                    await caller.fetch(ANSWER, PROJECT, lease[0])
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
                parked = await connection.fetch(PARKED, PROJECT)
                assert parked == await connection.fetch(WAITING, PROJECT)
                assert await connection.fetch(HIDDEN, PROJECT) == []
        for caller in list(callers.open):
            await callers.finish(caller)
    await passed(ledger, await ledger_now(ledger.pool) + TICK)
    due = [row["run_id"] for row in await connection.fetch(OVERDUE, PROJECT)]
    assert due
    assert sorted(run.run_id for run in await ledger.reap(leases=False)) == due
    claimable = {row["run_id"] for row in await connection.fetch(CLAIMABLE, PROJECT)}

    assert claimable
    assert set(await claims(connection, 1000)) == claimable


async def test_verify_takes_nothing_for_hidden_that_has_ended_has_another_mark_or_came_late(
    ledger: Ledger, connection: asyncpg.Connection[Any], other: asyncpg.Connection[Any]
) -> None:
    over = await claimed(ledger, deadline=0.001)
    await ledger.complete(over)
    await passed(ledger, await ledger_now(ledger.pool) + TICK)
    transaction = other.transaction()
    await transaction.start()
    await other.fetchval(SUBMIT, PROJECT, "parse", 0, None)
    await ledger.submit_many([Submit(kind="parse", priority=priority) for priority in (0, 3)] * 2)
    held = await ledger.claim("w:1", limit=4)
    await ledger.submit_many([Submit(kind="parse", priority=priority) for priority in (0, 3)])
    for back in held[:3]:
        await ledger.release(back)
    await move(connection, times=3)
    await transaction.commit()

    mark = await mark_of(connection)
    deadline = (await ledger.get(over.run_id)).deadline
    assert deadline is not None
    assert mark["ends_from"] > deadline
    assert (mark["priorities"], mark["back_priorities"], len(mark["open"])) == ([0, 3], [0, 3], 1)
    assert mark["dues"][0] < mark["dues"][1]
    assert (await ledger.verify()).ok


@pytest.mark.parametrize(
    ("change", "walk", "hidden"),
    [
        ("leases_after = 1000000, older_leases = '{}'", "sweeps", 1),
        ("runs = ARRAY['ffffffff-ffff-7fff-bfff-ffffffffffff']::uuid[]", "claims", 3),
        ("dues = '{infinity}'", "claims", 1),
        ("ends_from = 'infinity'", "sweeps", 1),
        ("parked_after = 1000000, older_parked = '{}'", "sweeps", 2),
        ("cancels_after = 1000000", "sweeps", 1),
    ],
)
async def test_verify_names_a_run_that_a_mark_hides(
    unverified_database: str, change: str, walk: str, hidden: int
) -> None:
    connection = await asyncpg.connect(driver_url(unverified_database))
    async with Ledger.open(unverified_database, PROJECT) as ledger:
        for deadline in (None, 3600):
            await waiting(ledger, State.WAITING_TOOL, park=True, name="ask", deadline=deadline)
        parking = await claimed(ledger)
        await ledger.cancel(parking.run_id)
        await ledger.transition(parking, State.WAITING_TOOL, name="ask", park=True)
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
