"""Projections follow the feed: right in any batches, through pauses, rebuilds, new versions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import asyncpg
import pytest
from structlog.testing import capture_logs

from runfold.ledger import Ledger, State
from runfold.ledger.errors import CheckpointUnknown, InvalidValue
from runfold.ledger.events import Event, NoteAdded, StepCompleted
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.postgres.urls import driver_url
from runfold.projections.algebra.operation import total
from runfold.projections.declared import exchange
from runfold.projections.declared.catch_up import CatchUp
from runfold.projections.declared.installing import declared, install
from runfold.projections.declared.interventions import pause, resume
from runfold.projections.declared.projection import Projection
from runfold.projections.declared.refold import refold, refold_until
from runfold.projections.declared.sources import field
from runfold.projections.declared.status import statuses
from runfold.projections.errors import (
    OtherVersion,
    ProjectionFailed,
    ProjectionNotFound,
    ProjectionPaused,
    Redeclared,
)
from runfold.workers.duties.projector import Projector
from tests.support.projections import read, sizes, sizes_of
from tests.support.runs import TINY, waiting
from tests.support.waiting import awaited, blocked, lapsed, passed, until

SHIPPED = sorted(declared())


async def history(ledger: Ledger) -> None:
    """Let runs live through nearly everything that can happen to one."""
    await ledger.submit_many(
        [
            {"kind": kind}
            for kind in ("parse", "parse", "parse", "mail", "mail", "mail", "call", "call")
        ]
    )
    leases = await ledger.claim("w1", limit=8)
    for _ in range(3):
        await ledger.heartbeat(leases)
    one, two, three, four, five, six, seven, eight = leases
    await ledger.transition(one, "completed", cost_usd_delta=Decimal("0.25"), step_count_delta=3)
    await ledger.transition(two, "failed", error_code="acme.broken", cost_usd_delta=Decimal("0.5"))
    await ledger.retry(three, error_code="acme.again", delay=0)
    await ledger.release(four)
    await ledger.transition(five, "waiting_approval", park=True)
    await ledger.approve(await ledger.get(five.run_id), actor="ann", reason="fine")
    await ledger.transition(six, "waiting_approval", park=True)
    await ledger.reject(await ledger.get(six.run_id), actor="ann", reason="too dear")
    await ledger.transition(seven, "waiting_tool")
    await ledger.transition(seven, "running", step_count_delta=1)
    [late] = await ledger.claim("w2", limit=1, ttl=0.001)
    await ledger.append(late, StepCompleted(name="begun"))  # so that its loss is charged
    await lapsed(ledger, late)
    assert await ledger.reap()
    again = await ledger.claim("w3", limit=5)
    assert late.run_id in {lease.run_id for lease in again}
    await ledger.heartbeat(again)
    await ledger.transition(again[0], "completed", cost_usd_delta=Decimal("1.5"))
    await ledger.submit("parse")
    await ledger.cancel((await ledger.submit("parse")).run_id, actor="ann", reason="not needed")
    await ledger.transition(eight, "waiting_approval", park=True)


async def rows(ledger: Ledger, name: str) -> list[dict[str, Any]]:
    """Read a projection."""
    return [
        dict(row)
        for row in await ledger.pool.fetch(f'SELECT * FROM projection."{name}" ORDER BY 1, 2, 3')
    ]


async def row_of(ledger: Ledger, sql: str) -> tuple[Any, ...]:
    """Read one row."""
    [row] = await ledger.pool.fetch(sql)
    return tuple(row.values())


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 7, 5_000])
async def test_a_read_model_is_the_same_in_any_batches_and_rebuilt(
    ledger: Ledger, batch: int, subtests: pytest.Subtests
) -> None:
    followings = {}
    for name in SHIPPED:
        await install(ledger.pool, declared()[name])
        followings[name] = CatchUp(ledger.pool, declared()[name], batch=batch)
    await ledger.submit("parse")
    for following in followings.values():
        await following.to_the_end()
    await history(ledger)
    for name, following in followings.items():
        with subtests.test(name):
            await _is_the_same_when_rebuilt(ledger, name, following)


async def _is_the_same_when_rebuilt(ledger: Ledger, name: str, following: CatchUp) -> None:
    await following.to_the_end()
    before = await rows(ledger, name)

    done = await refold(ledger.pool, declared()[name], events_a_range=5)

    assert done.wrong == 0
    assert before
    stable = [{k: v for k, v in row.items() if k != "waiting_for"} for row in before]
    assert [
        {k: v for k, v in row.items() if k != "waiting_for"} for row in await rows(ledger, name)
    ] == stable
    assert await following.to_the_end() == 0


async def test_the_read_models_say_what_the_runs_say(ledger: Ledger) -> None:
    await history(ledger)
    for projection in declared().values():
        await install(ledger.pool, projection)
        await CatchUp(ledger.pool, projection).to_the_end()

    counted = "SELECT project_id, kind, state, {} FROM {} GROUP BY 1, 2, 3 {} ORDER BY 1, 2, 3"
    assert await ledger.pool.fetch(
        counted.format("count(*)", "ledger.run_state", "")
    ) == await ledger.pool.fetch(
        counted.format(
            "sum(runs)::bigint AS count", "projection.run_counts", "HAVING sum(runs) > 0"
        )
    )
    money = "SELECT sum(cost_usd), sum(step_count)::bigint FROM "
    truth = await row_of(ledger, money + "ledger.run_state")
    for name in ("spending", "attempts"):
        assert await row_of(ledger, f"{money} projection.{name}") == truth
    assert await row_of(ledger, "SELECT sum(attempt_count) FROM ledger.run_state") == await row_of(
        ledger, "SELECT count(*) FROM projection.attempts"
    )
    beats = await row_of(ledger, "SELECT count(*) FROM ledger.event WHERE type = 'lease.heartbeat'")
    for name in ("attempts", "worker_activity"):
        assert await row_of(ledger, f"SELECT sum(beats)::bigint FROM projection.{name}") == beats
    lost = await ledger.pool.fetch(
        "SELECT worker_id, outcome FROM projection.attempts WHERE outcome = 'lease.expired'"
    )
    assert [tuple(row.values()) for row in lost] == [("w2", "lease.expired")]
    decided = await ledger.pool.fetch(
        "SELECT outcome, decided_by, reason FROM projection.approvals ORDER BY outcome NULLS LAST"
    )
    assert [tuple(row.values()) for row in decided] == [
        ("approval.granted", "ann", "fine"),
        ("approval.rejected", "ann", "too dear"),
        (None, None, None),
    ]
    waits = await row_of(
        ledger, "SELECT count(waited), count(waiting_for) FROM projection.approvals"
    )
    assert waits == (2, 1)


async def test_an_approval_that_lapsed_waits_for_nobody(ledger: Ledger) -> None:
    lease = await waiting(
        ledger, State.WAITING_APPROVAL, park=True, wait=TINY, wait_outcome="lapsed"
    )
    await passed(ledger, (await ledger.get(lease.run_id)).wait_until)
    await ledger.reap()
    approvals = declared()["approvals"]
    await install(ledger.pool, approvals)
    await CatchUp(ledger.pool, approvals).to_the_end()

    assert await row_of(
        ledger,
        "SELECT outcome, decided_by, waited IS NULL, waiting_for FROM projection.approvals",
    ) == ("approval.lapsed", "reaper", False, None)


async def test_the_table_of_approvals_counts_those_who_approved(ledger: Ledger) -> None:
    lease = await waiting(ledger, State.WAITING_APPROVAL, park=True, content={"approvals": 2})
    approvals = declared()["approvals"]
    await install(ledger.pool, approvals)
    for name, counted in (("ann", (2, 1, None)), ("bob", (2, 2, "bob"))):
        await ledger.approve(await ledger.get(lease.run_id), actor=name)
        await CatchUp(ledger.pool, approvals).to_the_end()
        row = await row_of(
            ledger, "SELECT approvals, approved, decided_by FROM projection.approvals"
        )
        assert row == counted


async def test_a_function_is_called_with_every_event_exactly_once(
    ledger: Ledger, connection: asyncpg.Connection[Any]
) -> None:
    await connection.execute("CREATE TABLE sent (run_id uuid, version int)")
    broken = True

    async def send(inside: asyncpg.Connection[Any], events: Sequence[Event]) -> None:
        await inside.executemany(
            "INSERT INTO sent VALUES ($1, $2)", [(event.run_id, event.version) for event in events]
        )
        if broken and any(event.type == "note.added" for event in events):
            raise RuntimeError("the outside is down")

    outbox = Projection("outbox", apply=send)
    await install(ledger.pool, outbox)
    await history(ledger)
    run = (await ledger.submit("mail")).run_id
    await ledger.append(run, NoteAdded(text="poison"), actor="ann")
    await ledger.submit("mail")
    with pytest.raises(ProjectionFailed, match="RuntimeError: the outside is down") as failed:
        await CatchUp(ledger.pool, outbox).to_the_end()
    assert (failed.value.run_id, failed.value.version) == (run, 2)

    broken = False
    await resume(ledger.pool, "outbox")
    await asyncio.gather(*(CatchUp(ledger.pool, outbox, batch=3).to_the_end() for _ in range(3)))

    sent = [tuple(row.values()) for row in await connection.fetch("SELECT * FROM sent")]
    all_of_them = await connection.fetch(
        "SELECT run_id, version FROM ledger.event WHERE type <> 'lease.heartbeat'"
    )
    assert len(sent) == len(set(sent))
    assert set(sent) == {tuple(row.values()) for row in all_of_them}
    with pytest.raises(InvalidValue, match="cannot be rebuilt"):
        await refold(ledger.pool, outbox)


async def test_a_paused_projection_takes_nothing_until_it_is_resumed(ledger: Ledger) -> None:
    await install(ledger.pool, sizes())
    await read(ledger, (await ledger.submit("parse")).run_id, "1")
    await pause(ledger.pool, "sizes")
    with pytest.raises(ProjectionPaused):
        await CatchUp(ledger.pool, sizes()).step()
    assert [one.state for one in await statuses(ledger.pool, {})] == ["paused"]

    await resume(ledger.pool, "sizes")
    await CatchUp(ledger.pool, sizes()).to_the_end()
    assert await sizes_of(ledger) == [("parse", 1, 1)]
    with pytest.raises(ProjectionNotFound, match="there are: sizes"):
        await pause(ledger.pool, "size")


async def test_a_newer_version_takes_the_place_of_the_older_whose_processes_end(
    ledger: Ledger,
) -> None:
    await install(ledger.pool, sizes())
    await read(ledger, (await ledger.submit("parse")).run_id, "4")
    await CatchUp(ledger.pool, sizes()).to_the_end()
    newer = sizes(2, columns={"most": total(field("size", "bigint"), {"acme.read"})})

    done = await refold(ledger.pool, newer)

    assert done.wrong is None
    assert await row_of(ledger, "SELECT kind, most FROM projection.sizes") == ("parse", 4)
    with pytest.raises(OtherVersion):
        await Projector(ledger.pool, sizes()).run()
    with pytest.raises(OtherVersion):
        await refold(ledger.pool, sizes())
    with pytest.raises(Redeclared):
        await refold(ledger.pool, sizes(2))
    assert done.kept_in is not None
    assert await row_of(ledger, f"SELECT reads FROM {done.kept_in}") == (1,)


async def test_a_table_that_was_written_by_hand_is_found_and_put_right(ledger: Ledger) -> None:
    await install(ledger.pool, sizes())
    await read(ledger, (await ledger.submit("parse")).run_id, "4")
    await CatchUp(ledger.pool, sizes()).to_the_end()
    await ledger.pool.execute("UPDATE projection.sizes_v1 SET size = 5")
    await ledger.pool.execute("INSERT INTO projection.sizes_v1 VALUES ('ghost', 1, 1)")

    assert (await refold(ledger.pool, sizes())).wrong == 2
    assert await sizes_of(ledger) == [("parse", 1, 4)]
    await ledger.pool.execute("ALTER TABLE projection.sizes_v1 ADD COLUMN more text")
    assert (await refold(ledger.pool, sizes())).wrong is None
    assert (await refold(ledger.pool, sizes())).wrong == 0


async def test_a_table_that_is_far_behind_is_replaced_without_being_brought_up(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "MOST_BEHIND", 2)
    run = (await ledger.submit("parse")).run_id
    for size in "123":
        await read(ledger, run, size)

    assert (await refold(ledger.pool, sizes())).wrong is None  # it was new
    assert await sizes_of(ledger) == [("parse", 3, 6)]
    await read(ledger, run, "4")
    assert (await refold(ledger.pool, sizes())).wrong == 0
    assert await sizes_of(ledger) == [("parse", 4, 10)]


@pytest.mark.parametrize("caught_up", [True, False])
async def test_a_rebuild_in_a_cluster_that_has_recorded_nothing_yet(
    ledger: Ledger, *, caught_up: bool
) -> None:
    await install(ledger.pool, sizes())
    following = CatchUp(ledger.pool, sizes())
    run = await ledger.submit("parse")
    await read(ledger, run.run_id, "4")
    if caught_up:
        await following.to_the_end()
    await ledger.pool.execute("SELECT ledger.feed_rebase()")

    assert (await refold(ledger.pool, sizes())).wrong == 0
    assert await sizes_of(ledger) == [("parse", 1, 4)]
    await read(ledger, run.run_id, "5")
    assert await following.to_the_end() == 1
    assert await sizes_of(ledger) == [("parse", 2, 9)]


async def test_a_rebuild_goes_on_under_load_and_after_it_was_killed(ledger: Ledger) -> None:
    counts = declared()["run_counts"]
    await install(ledger.pool, counts)
    for _ in range(5):
        await ledger.submit_many([{"kind": "parse"}] * 40)
    stop = asyncio.Event()

    async def write() -> None:
        while not stop.is_set():
            for lease in await ledger.claim("w1", limit=3):
                await ledger.transition(lease, "completed")
            await ledger.submit("mail")

    class Killed(Exception):
        pass

    def kill(_: object) -> None:
        raise Killed

    writing = asyncio.create_task(write())
    following = asyncio.create_task(Projector(ledger.pool, counts).run())
    try:
        with pytest.raises(Killed):
            await refold(ledger.pool, counts, events_a_range=20, connections=1, on_progress=kill)
        done = await refold(ledger.pool, counts, events_a_range=20)
    finally:
        stop.set()
        await writing
        following.cancel()
    assert done.resumed
    assert done.wrong == 0
    await CatchUp(ledger.pool, counts).to_the_end()
    counted = "SELECT state, {} FROM {} GROUP BY 1 {} ORDER BY 1"
    assert await ledger.pool.fetch(
        counted.format("count(*)", "ledger.run_state", "")
    ) == await ledger.pool.fetch(
        counted.format(
            "sum(runs)::bigint AS count", "projection.run_counts", "HAVING sum(runs) > 0"
        )
    )


async def test_readers_wait_for_an_exchange_and_never_it_for_them_and_they_for_it(
    ledger: Ledger, database: str
) -> None:
    reading = "SELECT kind, reads FROM projection.sizes"
    await install(ledger.pool, sizes())
    await read(ledger, (await ledger.submit("parse")).run_id, "1")
    await CatchUp(ledger.pool, sizes()).to_the_end()
    first, second = [await asyncpg.connect(driver_url(database)) for _ in range(2)]
    try:
        async with first.transaction():
            await first.fetch(reading)
            rebuilding = asyncio.create_task(refold(ledger.pool, sizes()))
            await awaited(first)
            behind = asyncio.create_task(second.fetch(reading))
            await blocked(ledger, second.get_server_pid())

        assert (await rebuilding).wrong == 0
        assert [tuple(row) for row in await behind] == [("parse", 1)]
    finally:
        await first.close()
        await second.close()


async def test_a_projection_as_of_then_is_built_beside_the_live_one(ledger: Ledger) -> None:
    await install(ledger.pool, sizes())
    await read(ledger, (await ledger.submit("parse")).run_id, "4")
    [now] = await fetch(ledger.pool, "SELECT clock_timestamp() AS now")
    await read(ledger, (await ledger.submit("parse")).run_id, "4")

    done = await refold_until(ledger.pool, sizes(), now["now"])

    assert await row_of(ledger, f"SELECT reads, size FROM {done.kept_in}") == (1, 4)


async def test_a_live_projection_follows_by_itself_through_pauses_and_lost_connections(
    ledger: Ledger, connection: asyncpg.Connection[Any]
) -> None:
    counts = declared()["run_counts"]
    await install(ledger.pool, counts)
    following = asyncio.create_task(Projector(ledger.pool, counts).run())

    async def seen(wanted: int) -> bool:
        return bool(
            await connection.fetchval("SELECT coalesce(sum(runs), 0) FROM projection.run_counts")
            == wanted
        )

    try:
        await ledger.submit("parse")
        await until(lambda: seen(1))
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await connection.execute("UPDATE ledger.projection SET paused_at = clock_timestamp()")
        await connection.execute("UPDATE ledger.projection SET paused_at = NULL")
        await until(lambda: submitted(ledger))
        await until(lambda: seen(2))
    finally:
        following.cancel()


async def submitted(ledger: Ledger) -> bool:
    """Submit a run, by a key, if the pool has a connection again."""
    try:
        await ledger.submit("parse", key="the second")
    except Exception:  # whichever of the pool's connections was cut
        return False
    return True


@pytest.mark.parametrize(
    "damaged",
    [{"snapshot": "9:9:@4@0123456789abcdef"}, {"snapshot": "9:9"}, {"target": "x"}],
    ids=["of another history", "cut", "cut target"],
)
async def test_a_checkpoint_that_is_none_of_this_feed_is_refused_named_and_mended_by_a_rebuild(
    ledger: Ledger, damaged: dict[str, str]
) -> None:
    counts = declared()["run_counts"]
    for projection in (sizes(), counts):
        await install(ledger.pool, projection)
    await read(ledger, (await ledger.submit("parse")).run_id, "4")
    await CatchUp(ledger.pool, counts).to_the_end()
    [(column, value)] = damaged.items()
    await ledger.pool.execute(
        f"UPDATE ledger.projection SET {column} = $1 WHERE name = 'sizes'", value
    )

    with pytest.raises(CheckpointUnknown):
        await CatchUp(ledger.pool, sizes()).step()
    stated = {status.name: status for status in await statuses(ledger.pool, {"sizes": sizes()})}
    assert (stated["run_counts"].state, stated["sizes"].state) == ("current", "failed")
    assert "runfold projections rebuild sizes" in str(stated["sizes"].error)

    with capture_logs() as logs:
        following = asyncio.create_task(Projector(ledger.pool, sizes()).run())
        await until(lambda: logs)
        assert (await refold(ledger.pool, sizes())).wrong is None
        await until(lambda: len(logs) > 1)
        following.cancel()
    assert [line["event"] for line in logs] == ["projection_stopped", "projection_goes_on"]
    assert await CatchUp(ledger.pool, sizes()).to_the_end() == 0
    assert await sizes_of(ledger) == [("parse", 1, 4)]


async def test_a_new_projection_is_behind_by_every_event(ledger: Ledger) -> None:
    assert [status.behind for status in await statuses(ledger.pool, {"sizes": sizes()})] == [0]
    await read(ledger, (await ledger.submit("parse")).run_id, "4")

    [status] = await statuses(ledger.pool, {"sizes": sizes()})

    assert (status.state, status.behind) == ("new", 2)


async def test_looking_for_what_is_new_costs_no_transaction_id(
    ledger: Ledger, connection: asyncpg.Connection[Any]
) -> None:
    await install(ledger.pool, sizes())
    run = (await ledger.submit("parse")).run_id
    following = CatchUp(ledger.pool, sizes())
    await following.to_the_end()
    await following.step()
    locker = "SELECT xmax::text FROM ledger.projection WHERE name = 'sizes'"
    before = await connection.fetchval(locker)

    for _ in range(5):
        assert await following.step() is None

    assert await connection.fetchval(locker) == before
    await read(ledger, run, "4")
    assert await following.to_the_end() == 1


@pytest.mark.new_database
async def test_looking_costs_the_same_after_a_large_transaction(
    ledger: Ledger, connection: asyncpg.Connection[Any]
) -> None:
    await install(ledger.pool, sizes())
    await ledger.submit_many([{"kind": "parse"}] * 5_000)
    await CatchUp(ledger.pool, sizes()).to_the_end()
    look = (
        "SELECT n.* FROM ledger.projection AS p, "
        "LATERAL ledger.feed_next(p.generation, p.snapshot, 0) AS n"
    )
    assert await connection.fetch(look) == []

    explained = await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {look}")

    plan = json.loads(explained)[0]["Plan"]
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 100
