"""Kinds: paused, resumed and limited across the fleet, each time by an event."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import pytest

from runfold.ledger import Ledger, State, Submit
from runfold.ledger.errors import InvalidValue
from tests.support.databases import PROJECT
from tests.support.logins import channel
from tests.support.waiting import BOUND, awaited


async def test_a_paused_kind_is_not_claimed_while_runs_that_are_held_go_on(ledger: Ledger) -> None:
    await ledger.submit_many([Submit(kind="parse")] * 2)
    other = await ledger.submit("other")
    (held,) = await ledger.claim("w:1", kinds=["parse"])

    await ledger.pause_kind("parse", actor="ann", reason="the parser is broken")
    by_any = await ledger.claim("w:2", limit=5)
    by_kind = await ledger.claim("w:2", kinds=["parse"], limit=5)
    [held] = await ledger.heartbeat([held])
    done = await ledger.transition(held, State.COMPLETED)

    assert [lease.run_id for lease in by_any] == [other.run_id]
    assert by_kind == []
    assert (held.lost, done.state) == (False, State.COMPLETED)


async def test_a_resumed_kind_is_claimed_again_and_the_workers_are_woken(
    ledger: Ledger, connection: asyncpg.Connection
) -> None:
    run = await ledger.submit("parse")
    await ledger.pause_kind("parse", actor="ann")
    await ledger.project.waker.flush()
    heard = asyncio.Event()
    await connection.add_listener(await channel(connection), lambda *_: heard.set())

    await ledger.resume_kind("parse", actor="ann")

    async with asyncio.timeout(BOUND):
        await heard.wait()
    assert [lease.run_id for lease in await ledger.claim("w:1", limit=5)] == [run.run_id]


async def test_what_was_done_to_a_kind_is_recorded_with_who_and_why(ledger: Ledger) -> None:
    await ledger.limit_kind("parse", 3, actor="ann", ahead=True)
    await ledger.pause_kind("parse", actor="bob", reason="incident")
    await ledger.resume_kind("parse", actor="ann", reason="fixed")
    await ledger.limit_kind("parse", None, actor="ann")

    history = await ledger.kind_history("parse")

    assert [(e.number, e.type, e.actor, e.max_running, e.reason) for e in history] == [
        (1, "kind.limited", "ann", 3, None),
        (2, "kind.paused", "bob", None, "incident"),
        (3, "kind.resumed", "ann", None, "fixed"),
        (4, "kind.limited", "ann", None, None),
    ]
    (kind,) = await ledger.kinds()
    assert (kind.kind, kind.paused, kind.max_running, kind.held) == ("parse", False, None, 0)
    assert kind.updated_at == history[-1].recorded_at


async def test_concurrent_changes_of_a_new_kind_are_all_recorded(ledger: Ledger) -> None:
    limits = range(1, 9)
    await asyncio.gather(*(ledger.limit_kind("parse", n, ahead=True, actor="ann") for n in limits))

    history = await ledger.kind_history("parse")
    (kind,) = await ledger.kinds()

    assert [event.number for event in history] == list(range(1, 9))
    assert kind.max_running == history[-1].max_running


async def test_a_limit_counts_held_runs_and_a_freed_place_is_taken(ledger: Ledger) -> None:
    await ledger.submit_many([Submit(kind="parse", priority=i % 3) for i in range(20)])
    await ledger.submit_many([Submit(kind="other")] * 3)
    await ledger.limit_kind("parse", 4, actor="ann")

    first = await ledger.claim("w:1", limit=3, kinds=["parse"])
    second = await ledger.claim("w:2", limit=10)
    full = await ledger.claim("w:3", limit=10)
    await ledger.transition(first[0], State.COMPLETED)
    await ledger.transition(first[1], "waiting_approval", park=True)
    freed = await ledger.claim("w:3", limit=10)

    assert (len(first), sorted(lease.kind for lease in second), full) == (
        3,
        ["other"] * 3 + ["parse"],
        [],
    )
    assert [lease.kind for lease in freed] == ["parse"] * 2
    assert {kind.kind: kind.held for kind in await ledger.kinds()} == {"other": 3, "parse": 4}


async def test_a_limit_is_one_for_runs_that_came_back_and_new_ones(ledger: Ledger) -> None:
    await ledger.submit_many([Submit(kind="parse")] * 4)
    for lease in await ledger.claim("w:1", limit=2):
        await ledger.release(lease)
    await ledger.limit_kind("parse", 3, actor="ann")

    assert len(await ledger.claim("w:1", limit=10)) == 3
    await ledger.submit("parse")
    assert await ledger.pool.fetchval("SELECT count(*) FROM ledger.kind") == 1


async def test_a_limit_below_what_is_held_takes_nothing_away_and_claims_nothing(
    ledger: Ledger,
) -> None:
    await ledger.submit_many([Submit(kind="parse")] * 6)
    leases = await ledger.claim("w:1", limit=3)

    await ledger.limit_kind("parse", 1, actor="ann")

    assert not any(lease.lost for lease in await ledger.heartbeat(leases))
    assert await ledger.claim("w:1", limit=3) == []
    await ledger.limit_kind("parse", None, actor="ann")
    assert len(await ledger.claim("w:1", limit=3)) == 3


async def test_concurrent_claimers_never_exceed_a_limit(database: str) -> None:
    most, claimers = 5, 6
    async with AsyncExitStack() as stack:
        ledgers = [
            await stack.enter_async_context(Ledger.open(database, PROJECT)) for _ in range(claimers)
        ]
        await ledgers[0].submit_many([Submit(kind="parse", priority=i % 3) for i in range(60)])
        await ledgers[0].limit_kind("parse", most, actor="ann")
        done = 0
        for _ in range(12):
            claims = (
                one.claim(f"w:{i}", limit=3, kinds=["parse"]) for i, one in enumerate(ledgers)
            )
            held = [lease for share in await asyncio.gather(*claims) for lease in share]
            assert len(held) == most
            for lease in held:
                await ledgers[0].transition(lease, State.COMPLETED)
            done += len(held)

    assert done == 60


async def test_a_second_claimer_waits_for_the_first_and_counts_what_it_took(
    ledger: Ledger, connection: asyncpg.Connection
) -> None:
    await ledger.submit_many([Submit(kind="parse")] * 6)
    await ledger.limit_kind("parse", 2, actor="ann")
    first = connection.transaction()
    await first.start()
    taken = await connection.fetch("SELECT * FROM ledger.claim('test', 'w:1', '{parse}', 2, '60s')")

    second = asyncio.create_task(ledger.claim("w:2", limit=2))
    await awaited(connection)
    await first.commit()

    assert (len(taken), await second) == (2, [])


async def test_a_claim_on_an_old_snapshot_cannot_miscount(
    ledger: Ledger, connection: asyncpg.Connection
) -> None:
    await ledger.submit("parse")
    await ledger.limit_kind("parse", 1, actor="ann")

    async with connection.transaction(isolation="repeatable_read"):
        with pytest.raises(asyncpg.PostgresError, match="read committed"):
            await connection.fetch("SELECT * FROM ledger.claim('test', 'w:1', '{parse}', 1, '60s')")


async def test_a_limit_that_makes_no_sense_is_refused(
    ledger: Ledger, subtests: pytest.Subtests
) -> None:
    given: tuple[Any, ...] = (0, -1, True, 1.5, "3", 2**31)
    for value in given:
        with subtests.test(value=value):
            with pytest.raises(InvalidValue, match="max_running"):
                await ledger.limit_kind("parse", value, actor="ann")

            assert await ledger.kind_history("parse") == []


async def test_a_kind_an_actor_or_a_reason_that_is_no_text_is_refused(ledger: Ledger) -> None:
    for given in ({"kind": ""}, {"kind": "a\nb"}, {"kind": "x" * 201},
        {"kind": "parse", "actor": ""},
                  {"kind": "parse", "reason": "\x00"}):  # fmt: skip
        with pytest.raises(InvalidValue):
            await ledger.pause_kind(**given)  # type: ignore[arg-type]

    assert await ledger.kinds() == []


async def test_events_of_kinds_are_never_changed_and_follow_each_other(
    ledger: Ledger, connection: asyncpg.Connection
) -> None:
    await ledger.pause_kind("parse", actor="ann", ahead=True)
    await connection.execute("SET session_replication_role = replica")

    for statement in (
        "UPDATE ledger.kind_event SET actor = 'mallory'",
        "DELETE FROM ledger.kind_event",
        "TRUNCATE ledger.kind_event",
    ):
        with pytest.raises(asyncpg.PostgresError, match="append-only"):
            await connection.execute(statement)
    insert = (
        "INSERT INTO ledger.kind_event VALUES ('test', $1, $2, now(), 'mallory', 'kind.resumed')"
    )
    for kind, number in (("parse", 3), ("other", 2)):
        with pytest.raises(asyncpg.PostgresError, match="does not follow"):
            await connection.execute(insert, kind, number)

    assert [event.type for event in await ledger.kind_history("parse")] == ["kind.paused"]
