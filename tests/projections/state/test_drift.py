"""Drift: every damaged column is found, no writer is taken for damage, repairs are recorded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from structlog.testing import capture_logs

from runfold.console.cli.kit import exits
from runfold.ledger import Lease, Ledger, State, names
from runfold.ledger.errors import AccessDenied, InvalidValue
from runfold.ledger.events import NoteAdded, StepCompleted
from runfold.ledger.postgres.urls import driver_url
from runfold.ledger.proof.fold import Drift
from runfold.ledger.reading import snapshot
from runfold.projections.state.drift import check, sample
from runfold.projections.state.repair import REPAIRED, repair
from runfold.projections.state.run_state import COLUMNS
from runfold.workers.duties.drift_sampler import Sampler
from tests.support.console import Cli
from tests.support.databases import PROJECT
from tests.support.logins import with_login
from tests.support.runs import claimed, newest
from tests.support.waiting import BOUND, awaited, until

DAMAGE = {
    "int4": "coalesce({name}, 0) + 41",
    "int8": "coalesce({name}, 0) + 41",
    "text": "coalesce({name}, '') || '!'",
    "varchar": "coalesce({name}, '') || '!'",
    "bytea": "coalesce({name}, '') || '\\x00'",
    "timestamptz": "coalesce({name}, '2020-01-01Z') + interval '1 microsecond'",
    "numeric": "{name} + 0.000001",
    "_text": "{name} || ARRAY['planted']",
}


@pytest.fixture
async def mallory(unverified_database: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A superuser's connection to a database whose state may be damaged as one likes."""
    connection = await asyncpg.connect(driver_url(unverified_database))
    await connection.execute("ALTER TABLE ledger.run_state DROP CONSTRAINT lease_matches_state")
    yield connection
    await connection.close()


@pytest.fixture
async def ledger(unverified_database: str) -> AsyncIterator[Ledger]:
    """The ledger of that database, which must verify again in the end."""
    async with Ledger.open(unverified_database, PROJECT) as opened:
        yield opened
        assert (await opened.verify()).ok


async def found(ledger: Ledger) -> list[Drift]:
    """Return what the full check finds."""
    return [one async for one in check(ledger)]


async def repaired(ledger: Ledger, *runs: UUID) -> list[Drift]:
    """Repair runs."""
    return await repair(ledger, runs, actor="ann", reason="a test")


async def worked(ledger: Ledger) -> Lease:
    """Return a lease on a run with some history."""
    lease = await claimed(ledger, tags=["t"], deadline=3600)
    await ledger.append(lease, StepCompleted(name="s", cost_usd=Decimal("0.5"), step_count=1))
    return lease


@pytest.mark.slow
async def test_damage_in_any_column_is_found_named_and_repaired(
    ledger: Ledger, mallory: asyncpg.Connection[Any], subtests: pytest.Subtests
) -> None:
    good, lease = await worked(ledger), await worked(ledger)
    for column in COLUMNS:
        with subtests.test(column):
            # The sample looks at the newest events, of which each repair is one.
            await ledger.append(good.run_id, NoteAdded(text="undamaged"))
            before = await ledger.get(lease.run_id)
            type_ = await mallory.fetchval(
                "SELECT t.typname FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid "
                "WHERE a.attrelid = 'ledger.run_state'::regclass AND a.attname = $1", column,
            )  # fmt: skip
            damaged = DAMAGE[type_].format(name=column)
            await mallory.execute(
                f"UPDATE ledger.run_state SET {column} = {damaged} WHERE run_id = $1", lease.run_id
            )

            (one,) = await found(ledger)

            assert (one.run_id, list(one.columns), one.expected, one.stored) == (
                lease.run_id,
                [column],
                True,
                True,
            )
            want, have = one.columns[column]
            assert want != have
            assert (await sample(ledger, 50)) == (2, [one])
            assert await repaired(ledger, good.run_id, lease.run_id) == [one]
            after = await ledger.get(lease.run_id)
            assert after.version == before.version + 1
            assert (await ledger.state_at(lease.run_id, before.version)) == before
            assert await found(ledger) == []


async def test_a_repair_is_a_note_on_the_run_that_says_what_was_wrong_by_whom_and_why(
    ledger: Ledger, mallory: asyncpg.Connection[Any]
) -> None:
    lease = await worked(ledger)
    await mallory.execute("UPDATE ledger.run_state SET state = 'completed', cost_usd = 7")

    await repaired(ledger, lease.run_id)

    note = await newest(ledger, lease.run_id, NoteAdded)
    assert (note.name, note.actor) == (REPAIRED, "ann")
    assert note.text is not None
    assert note.text.startswith("a test: ")
    assert "state is 'completed', its events say 'running'" in note.text
    assert "cost_usd is Decimal('7" in note.text
    assert await repaired(ledger, lease.run_id) == []
    assert (await ledger.transition(lease, State.COMPLETED)).state == State.COMPLETED


async def test_amounts_that_no_float_tells_apart_are_told_apart(
    ledger: Ledger, mallory: asyncpg.Connection[Any]
) -> None:
    lease = await claimed(ledger)
    await ledger.append(lease, StepCompleted(name="s", cost_usd=Decimal("999999999.000001")))
    for _ in range(20):
        await ledger.append(lease, StepCompleted(name="s", cost_usd=Decimal(999999999)))
    await mallory.execute("UPDATE ledger.run_state SET cost_usd = cost_usd + 0.000001")

    (one,) = await found(ledger)

    assert list(one.columns) == ["cost_usd"]
    await repaired(ledger, lease.run_id)


async def test_a_missing_row_comes_back_and_a_row_without_events_goes(
    ledger: Ledger, mallory: asyncpg.Connection[Any]
) -> None:
    lease, other = await worked(ledger), await worked(ledger)
    phantom = UUID("01890000-0000-7000-8000-000000000000")
    before = await ledger.get(lease.run_id)
    await mallory.execute(
        "CREATE TEMP TABLE copy AS SELECT * FROM ledger.run_state WHERE run_id = $1", other.run_id
    )
    await mallory.execute("UPDATE copy SET run_id = $1", phantom)
    await mallory.execute("INSERT INTO ledger.run_state SELECT * FROM copy")
    await mallory.execute("DELETE FROM ledger.run_state WHERE run_id = $1", lease.run_id)

    unexpected, missing = sorted(await found(ledger), key=lambda one: one.run_id)

    assert (unexpected.run_id, unexpected.expected, unexpected.stored) == (phantom, False, True)
    assert (missing.run_id, missing.expected, missing.stored) == (lease.run_id, True, False)
    assert set(missing.columns) >= {"state", "version", "hash"}
    assert (await sample(ledger, 50))[1] == [missing]
    with capture_logs() as logs:
        await repaired(ledger, phantom, lease.run_id)
    assert [entry["run_id"] for entry in logs if entry["event"] == names.PHANTOM_REMOVED] == [
        str(phantom)
    ]
    assert (await ledger.state_at(lease.run_id, before.version)) == before
    assert await found(ledger) == []


async def test_the_check_goes_range_by_range_and_leaves_out_nothing(
    ledger: Ledger, mallory: asyncpg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "EVENTS_A_RANGE", 7)
    await ledger.submit_many([{"kind": "parse"} for _ in range(40)])
    await ledger.claim("w:1", limit=13)
    await mallory.execute("UPDATE ledger.run_state SET priority = priority + 1")
    told: list[int] = []

    comparison = check(ledger, told.append)
    damaged = [one async for one in comparison]

    assert len({one.run_id for one in damaged}) == len(damaged) == 40
    assert (comparison.runs, comparison.differ) == (40, 40)
    assert told == sorted(told)
    assert len(told) >= 5
    await repaired(ledger, *sorted(one.run_id for one in damaged))


async def test_what_writers_do_meanwhile_is_no_drift_and_a_repair_loses_nothing_of_it(
    ledger: Ledger, mallory: asyncpg.Connection[Any]
) -> None:
    leases = [await claimed(ledger, f"w:{n}") for n in range(8)]
    runs = sorted(lease.run_id for lease in leases)
    stop = asyncio.Event()
    beats = 0

    async def write() -> None:
        nonlocal beats
        while not stop.is_set():
            answers = await ledger.heartbeat(leases)
            assert not any(answer.lost for answer in answers)
            beats += len(answers)

    writer = asyncio.create_task(write())
    try:
        for _ in range(15):
            assert await found(ledger) == []
            # Damage that a writer does not build upon: the next fold keeps priority as it is.
            await mallory.execute(
                "UPDATE ledger.run_state SET priority = 99 WHERE run_id = $1", runs[0]
            )
            assert [list(one.columns) for one in await repaired(ledger, *runs)] == [["priority"]]
        await until(lambda: beats >= 80)
    finally:
        stop.set()
        await writer

    assert (
        await ledger.pool.fetchval(
            "SELECT count(*) FROM ledger.event WHERE type = 'lease.heartbeat'"
        )
        == beats
    )
    assert await found(ledger) == []


MOVE = "SELECT ledger.move_low_water('test', '{parse}', '-1 day', '0')"
DAMAGES = ("UPDATE ledger.run_state SET priority = 99", "DELETE FROM ledger.run_state")


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_repaired_run_is_claimed_although_marks_were_moved_past_it_meanwhile(
    ledger: Ledger, mallory: asyncpg.Connection[Any], damage: str
) -> None:
    run = await ledger.submit("parse")
    await mallory.execute(f"{damage} WHERE run_id = $1", run.run_id)
    for _ in range(3):
        await mallory.execute(MOVE)

    async with mallory.transaction():  # this move sees the damage, and ends after the repair began
        await mallory.execute(MOVE)
        repairing = asyncio.create_task(repaired(ledger, run.run_id))
        await awaited(mallory)
    assert len(await repairing) == 1

    assert (await ledger.verify()).ok
    assert [lease.run_id for lease in await ledger.claim("w:1")] == [run.run_id]


async def test_two_repairs_of_a_missing_row_at_once_repair_it_once(
    ledger: Ledger, mallory: asyncpg.Connection[Any]
) -> None:
    lease = await worked(ledger)
    await mallory.execute("DELETE FROM ledger.run_state")

    both = await asyncio.gather(*(repaired(ledger, lease.run_id) for _ in range(2)))

    assert sorted(len(drifted) for drifted in both) == [0, 1]
    assert await found(ledger) == []


async def test_no_lock_of_a_login_stops_a_repair(ledger: Ledger, database: str) -> None:
    run = await ledger.submit("parse")
    async with with_login(database, "runfold_worker", rights=("read",)) as url:
        login = await asyncpg.connect(driver_url(url))
        await login.execute("SELECT pg_advisory_lock(hashtextextended('ledger.repair', 0))")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with login.transaction():
                await login.execute("LOCK TABLE ledger.feed_generation IN ROW EXCLUSIVE MODE")
        async with asyncio.timeout(BOUND):
            assert await repair(ledger, [run.run_id], actor="ann", reason="a test") == []
        await login.close()


async def test_a_repair_needs_the_owner_a_name_and_a_reason(
    ledger: Ledger, mallory: asyncpg.Connection[Any], unverified_database: str
) -> None:
    lease = await worked(ledger)
    await mallory.execute("UPDATE ledger.run_state SET priority = 99")
    await mallory.execute("CREATE ROLE drift_worker IN ROLE runfold_worker")
    try:
        mark = "&" if "?" in unverified_database else "?"
        url = f"{unverified_database}{mark}options=-c%20role%3Ddrift_worker"
        async with Ledger.open(url, PROJECT) as worker:
            assert len(await found(worker)) == 1
            with pytest.raises(AccessDenied):
                await repaired(worker, lease.run_id)
    finally:
        await mallory.execute("DROP ROLE drift_worker")
    for given in (
        {"actor": "", "reason": "r"},
        {"actor": "a\nb", "reason": "r"},
        {"actor": "a", "reason": ""},
    ):
        with pytest.raises(InvalidValue):
            await repair(ledger, [lease.run_id], **given)
    assert len(await repaired(ledger, lease.run_id)) == 1


# -- the duty --------------------------------------------------------------------------


async def test_the_sampler_says_drift_once_and_again_when_it_changes(
    ledger: Ledger, mallory: asyncpg.Connection[Any]
) -> None:
    sampler = Sampler(ledger, size=10)
    assert await sampler.tick() == []
    assert sampler.checked == 0
    lease = await worked(ledger)
    assert await sampler.tick() == []
    assert sampler.checked == 1

    with capture_logs() as logs:
        await mallory.execute("UPDATE ledger.run_state SET priority = 99")
        assert [one.run_id for one in await sampler.tick()] == [lease.run_id]
        assert await sampler.tick() == []
        await mallory.execute("UPDATE ledger.run_state SET priority = 98")
        assert len(await sampler.tick()) == 1

    said = [entry for entry in logs if entry["event"] == names.DRIFTED]
    assert [entry["columns"] for entry in said] == [["priority"], ["priority"]]
    assert "priority is 99, its events say 0" in said[0]["detail"]
    await repaired(ledger, lease.run_id)


async def test_the_sampler_goes_on_after_an_outage(ledger: Ledger) -> None:
    await worked(ledger)
    sampler = Sampler(ledger, size=10, every=0.001)
    with capture_logs() as logs:
        await ledger.pool.execute("ALTER TABLE ledger.run_state RENAME TO gone")
        duty = asyncio.create_task(sampler.run())
        await until(lambda: any(entry["event"] == names.SAMPLER_INTERRUPTED for entry in logs))
        await ledger.pool.execute("ALTER TABLE ledger.gone RENAME TO run_state")
        await until(lambda: sampler.checked > 3)
        duty.cancel()

    assert [entry["event"] for entry in logs] == [names.SAMPLER_INTERRUPTED, names.SAMPLER_RESUMES]
    with pytest.raises(InvalidValue):
        Sampler(ledger, every=0)
    with pytest.raises(InvalidValue):
        Sampler(ledger, size=0)


# -- the command -----------------------------------------------------------------------


def test_drift_shows_expected_and_stored_side_by_side_and_repairs(
    unverified_database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.support.console import execute

    cli = Cli(unverified_database, capsys)
    run_id = cli.submitted()
    assert cli.ok("drift").err == "nothing differs in 1 run\n"
    execute(cli.url, "UPDATE ledger.run_state SET priority = 99, error_code = 'E'")

    answer, data = cli("drift"), cli("drift", "--sample", "5", "--json")

    assert (answer.code, data.code) == (exits.INTEGRITY, exits.INTEGRITY)
    lines = {line.split()[1]: line.split()[2:] for line in answer.out.splitlines()}
    assert lines == {
        "priority": ["expected", "0", "stored", "99"],
        "error_code": ["expected", "-", "stored", "E"],
    }
    drifted, summary = data.lines
    assert drifted["run_id"] == str(run_id)
    assert drifted["columns"]["priority"] == {"expected": 0, "stored": 99}
    assert summary == {"ok": False, "runs": 1, "differ": 1, "tags": 0, "repaired": False}
    cli.fails(exits.USAGE, "drift", "--repair")
    cli.fails(exits.USAGE, "drift", "--sample", "0")
    assert (
        "1 run differs of 1; repaired"
        in cli.ok("drift", "--repair", "--actor", "ann", "--reason", "restored by hand").err
    )
    assert cli.ok("drift").err == "nothing differs in 1 run\n"
    note = cli.ok("history", str(run_id), "--json").lines[-1]
    assert (note["name"], note["actor"]) == (REPAIRED, "ann")
