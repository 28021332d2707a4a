"""Submitting: what a run is asked for with, idempotency keys, and what cannot be."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import asyncpg
import pytest

from runfold.ledger import Ledger, State, Submit
from runfold.ledger.errors import (
    DuplicateKey,
    InvalidValue,
    MissingPartition,
    RunNotFound,
    UnknownProject,
)
from runfold.ledger.events import RunSubmitted
from tests.support.clock import set_clock, set_clock_of_ids
from tests.support.databases import PROJECT
from tests.support.runs import event_count, newest

ODD_TAGS = (
    'a "quoted" one',
    "back\\slash",
    "\\",
    '"',
    "{braces},commas",
    "NULL",
    "null",
    " leading and trailing ",
    "naïve Ärger 東京 \N{ROCKET}",
    "\u2028line",
    "'; DROP TABLE ledger.event; --",
)

LEAVES = (
    "SELECT inhrelid::regclass::text AS leaf FROM pg_inherits "
    "WHERE inhparent = 'ledger.event'::regclass"
)
NOBODY_MAKES_PARTITIONS = (
    "CREATE OR REPLACE FUNCTION ledger.make_partitions(p_months_ahead int DEFAULT 3) "
    "RETURNS int LANGUAGE plpgsql AS $$BEGIN RAISE insufficient_privilege; END$$"
)


async def test_a_submitted_run_is_pending_with_everything_it_was_asked_for_with(
    ledger: Ledger,
) -> None:
    before = datetime.now(UTC) - timedelta(minutes=5)
    deadline = datetime(2031, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)

    run = await ledger.submit(
        "parse",
        {"path": "a.py", "deep": [1, 2.5, None, True, {"x": "ü"}]},
        key="k-1",
        priority=7,
        max_attempts=5,
        deadline=deadline,
        tags=["nightly", "eu"],
    )

    assert run == await ledger.get(run.run_id) == await ledger.get(str(run.run_id))
    assert (run.project_id, run.kind, run.state, run.version) == (
        PROJECT,
        "parse",
        State.PENDING,
        1,
    )
    assert run.input == {"path": "a.py", "deep": [1, 2.5, None, True, {"x": "ü"}]}
    assert (run.key, run.priority, run.max_attempts, run.deadline) == ("k-1", 7, 5, deadline)
    assert run.tags == ("nightly", "eu")
    assert (run.attempt_count, run.step_count, run.cost_usd) == (0, 0, Decimal(0))
    assert (run.worker_id, run.token, run.lease_until, run.started_at, run.completed_at) == (
        None,
    ) * 5
    assert run.run_id.version == 7
    assert before < run.created_at == run.updated_at == run.available_at
    assert run.created_at.utcoffset() == timedelta(0)


async def test_the_first_event_of_a_run_carries_what_it_was_asked_for_with(ledger: Ledger) -> None:
    run = await ledger.submit("parse", [1], key="k", priority=2, tags=["t"])

    event = await newest(ledger, run.run_id, RunSubmitted)

    assert (event.version, event.actor, event.state) == (1, ledger.actor, State.PENDING)
    assert (event.kind, event.priority, event.max_attempts, event.tags) == ("parse", 2, 3, ("t",))
    assert (event.key, event.input, event.hash) == ("k", [1], run.hash)


async def test_any_json_value_is_an_input_and_comes_back_as_it_was(ledger: Ledger) -> None:
    values: list[Any] = [None, 0, False, "", [], {}, "text", 1e300, -1, {"a": {"b": [None]}}]

    for value in values:
        run = await ledger.submit("parse", value)
        (lease,) = await ledger.claim("w:1")

        assert (run.input, lease.input) == (value, value)
        assert type(run.input) is type(value)


async def test_the_order_of_submission_is_the_order_of_run_ids(ledger: Ledger) -> None:
    one_by_one = [(await ledger.submit("parse")).run_id for _ in range(20)]
    together = [one.run_id for one in await ledger.submit_many([Submit(kind="parse")] * 200)]

    assert one_by_one + together == sorted(one_by_one + together)
    assert len({*one_by_one, *together}) == 220


async def test_a_delay_sets_from_when_the_run_can_be_claimed(ledger: Ledger) -> None:
    run = await ledger.submit("parse", delay=timedelta(hours=1))
    same = await ledger.submit("parse", delay=3600)

    assert run.available_at == run.created_at + timedelta(hours=1)
    assert same.available_at == same.created_at + timedelta(hours=1)


async def test_a_deadline_in_seconds_counts_from_the_submission_on_the_databases_clock(
    ledger: Ledger,
) -> None:
    run = await ledger.submit("parse", deadline=90.5)

    assert run.deadline == run.created_at + timedelta(seconds=90.5)


async def test_tags_survive_quotes_backslashes_and_unicode(ledger: Ledger) -> None:
    run = await ledger.submit("parse", tags=ODD_TAGS)

    assert run.tags == ODD_TAGS
    assert (await newest(ledger, run.run_id, RunSubmitted)).tags == ODD_TAGS
    for tag in ODD_TAGS:
        assert [found.run_id for found in await ledger.runs(tag=tag)] == [run.run_id]


async def test_every_text_field_survives_quotes_backslashes_and_unicode(ledger: Ledger) -> None:
    odd = "ü\"\\'{}:%s $1 東京 \N{ROCKET}"

    run = await ledger.submit(odd, {odd: odd}, key=odd)
    (lease,) = await ledger.claim(odd)

    assert (run.kind, run.key, run.input) == (odd, odd, {odd: odd})
    assert (lease.kind, lease.worker_id, lease.input) == (odd, odd, {odd: odd})


# -- keys ------------------------------------------------------------------------------------------


async def test_the_same_key_and_content_give_the_same_run_and_write_nothing(ledger: Ledger) -> None:
    content: dict[str, Any] = {
        "priority": 1,
        "delay": 5,
        "deadline": 60,
        "tags": ["t"],
        "max_attempts": 2,
    }
    first = await ledger.submit("parse", {"b": 1, "a": 2}, key="k", **content)

    again = await ledger.submit("parse", {"a": 2, "b": 1}, key="k", **content)

    assert again == first
    assert await event_count(ledger) == 1


async def test_the_same_key_gives_the_run_as_it_is_now(ledger: Ledger) -> None:
    await ledger.submit("parse", key="k")
    (lease,) = await ledger.claim("w:1")
    done = await ledger.transition(lease, State.COMPLETED)

    assert await ledger.submit("parse", key="k") == done


async def test_the_same_key_with_other_content_is_an_error_that_names_both(ledger: Ledger) -> None:
    same: dict[str, Any] = {"kind": "parse", "input": 1, "key": "k"}
    first = await ledger.submit(**same)
    others: list[dict[str, Any]] = [
        {"kind": "other"},
        {"input": 2},
        {"input": None},
        {"priority": 1},
        {"delay": 1},
        {"max_attempts": 4},
        {"deadline": 60},
        {"deadline": datetime(2031, 1, 1, tzinfo=UTC)},
        {"tags": ["t"]},
    ]

    for other in others:
        with pytest.raises(DuplicateKey, match="k") as caught:
            await ledger.submit(**(same | other))
        assert (caught.value.key, caught.value.run_id, caught.value.version) == (
            "k",
            first.run_id,
            1,
        )
        assert str(first.run_id) in str(caught.value)

    assert await event_count(ledger) == 1
    assert [kind["kind"] for kind in await ledger.pool.fetch("SELECT kind FROM ledger.kind")] == [
        "parse"
    ]


async def test_a_key_belongs_to_one_project(ledger: Ledger, database: str) -> None:
    first = await ledger.submit("parse", 1, key="k")

    async with Ledger.open(database, "other", create_project=True) as other:
        second = await other.submit("parse", 2, key="k")

    assert second.run_id != first.run_id
    assert await ledger.submit("parse", 1, key="k") == first


async def test_one_key_twice_in_one_call_makes_one_run(ledger: Ledger) -> None:
    made = await ledger.submit_many(
        [
            Submit(kind="parse", input=i, key=key)
            for i, key in [(1, "k"), (2, None), (1, "k"), (3, "l"), (1, "k")]
        ]
    )

    assert [one.created for one in made] == [True, True, False, True, False]
    assert made[0].run_id == made[2].run_id == made[4].run_id
    assert len({one.run_id for one in made}) == 3
    assert await event_count(ledger) == 3


async def test_one_key_twice_in_one_call_with_other_content_makes_no_run(ledger: Ledger) -> None:
    with pytest.raises(DuplicateKey) as caught:
        await ledger.submit_many([Submit(kind="parse", input=i, key="k") for i in (1, 2)])

    assert caught.value.key == "k"
    assert await event_count(ledger) == 0


async def test_submit_many_mixes_old_keys_and_new_runs_in_the_order_given(ledger: Ledger) -> None:
    old = await ledger.submit("parse", 1, key="old")

    made = await ledger.submit_many(
        [
            {"kind": "parse", "input": 0},
            {"kind": "parse", "input": 1, "key": "old"},
            {"kind": "x", "key": "new"},
        ]
    )

    assert [one.created for one in made] == [True, False, True]
    assert made[1].run_id == old.run_id
    assert [(await ledger.get(one.run_id)).kind for one in made] == ["parse", "parse", "x"]


async def test_submit_many_writes_all_or_none(ledger: Ledger) -> None:
    await ledger.submit("parse", 1, key="taken")

    with pytest.raises(DuplicateKey):
        await ledger.submit_many([Submit(kind="fresh"), Submit(kind="parse", input=2, key="taken")])
    with pytest.raises(InvalidValue):
        await ledger.submit_many([Submit(kind="fresh"), Submit(kind="")])

    assert await event_count(ledger) == 1
    assert await ledger.submit_many([]) == []


async def test_submit_many_takes_ten_thousand_and_refuses_one_more(ledger: Ledger) -> None:
    with pytest.raises(InvalidValue, match="10,000"):
        await ledger.submit_many([Submit(kind="parse")] * 10_001)
    assert await event_count(ledger) == 0

    made = await ledger.submit_many([Submit(kind="parse")] * 10_000)

    assert len({one.run_id for one in made}) == 10_000


# -- what cannot be --------------------------------------------------------------------------------


async def test_a_project_that_vanished_or_never_was_is_an_unknown_project(
    ledger: Ledger, database: str
) -> None:
    with pytest.raises(UnknownProject, match="nowhere"):
        async with Ledger.open(database, "nowhere"):
            pass
    stranger = Ledger(ledger.pool, "gone", ledger.settings)
    with pytest.raises(UnknownProject) as caught:
        await stranger.submit("parse")

    assert caught.value.project_id == "gone"
    assert "runfold project create gone" in str(caught.value)
    assert await event_count(ledger) == 0


async def test_a_month_without_a_partition_is_an_error_that_names_the_remedy(
    ledger: Ledger, connection: asyncpg.Connection
) -> None:
    for row in await connection.fetch(LEAVES):
        await connection.execute(f"ALTER TABLE ledger.event DETACH PARTITION {row['leaf']}")

    with pytest.raises(MissingPartition, match="runfold db upgrade"):
        await ledger.submit("parse", {"a": 1}, key="k")

    assert await connection.fetchval("SELECT count(*) FROM ledger.payload") == 0
    assert await connection.fetchval("SELECT count(*) FROM ledger.run_state") == 0
    assert await connection.fetchval("SELECT count(*) FROM ledger.command") == 0


async def months_dropped(connection: asyncpg.Connection) -> None:
    """Leave the ledger as it is when no process has run for months: without a partition for now."""
    for row in await connection.fetch(LEAVES):
        await connection.execute(f"DROP TABLE {row['leaf']}")


async def test_the_first_submits_after_months_make_the_partition_that_is_missing(
    ledger: Ledger, connection: asyncpg.Connection
) -> None:
    for submits in (
        lambda: ledger.submit("parse", key="k"),
        lambda: ledger.submit_many([Submit(kind="parse", key="k")]),
    ):
        await connection.execute("TRUNCATE ledger.run_state, ledger.command, ledger.kind")
        await months_dropped(connection)
        assert await submits()

    assert (await ledger.runs())[0].key == "k"


async def test_opening_a_ledger_after_months_makes_the_partition_that_is_missing(
    ledger: Ledger, database: str, connection: asyncpg.Connection
) -> None:
    await months_dropped(connection)

    async with (
        Ledger.open(database, PROJECT) as opened,
        opened.pool.acquire() as own,
        own.transaction(),
    ):
        run = await opened.submit("parse", connection=own)

    assert (await ledger.get(run.run_id)).version == 1


async def test_a_submit_in_a_callers_transaction_makes_the_partition_that_is_missing(
    ledger: Ledger, connection: asyncpg.Connection
) -> None:
    await months_dropped(connection)
    transaction = connection.transaction()
    await transaction.start()
    lost = await ledger.submit("parse", connection=connection)
    await transaction.rollback()

    run = await ledger.submit("parse", connection=connection)

    assert [found.run_id for found in await ledger.runs()] == [run.run_id] != [lost.run_id]


async def test_a_submit_in_a_callers_transaction_waits_for_no_partition_of_next_month(
    ledger: Ledger, connection: asyncpg.Connection
) -> None:
    now = datetime.now(UTC)
    for row in await connection.fetch(LEAVES):
        if row["leaf"] != f"ledger.event_{now:%Y_%m}":
            await connection.execute(f"DROP TABLE {row['leaf']}")
    await connection.execute(NOBODY_MAKES_PARTITIONS)

    run = await ledger.submit("parse", connection=connection)

    assert (await ledger.get(run.run_id)).version == 1


@pytest.mark.parametrize("isolation", ["read_committed", "serializable"])
async def test_a_submit_at_midnight_makes_the_partition_of_the_month_that_begins(
    ledger: Ledger, connection: asyncpg.Connection, isolation: Any
) -> None:
    midnight = datetime(2039, 1, 1, tzinfo=UTC)
    commands = [Submit(kind="parse")] * 4
    before = midnight - timedelta(milliseconds=2)
    for months in (None, 0):  # the month that ends has no partition, or is the last that has one
        await connection.execute("TRUNCATE ledger.run_state, ledger.kind")
        await months_dropped(connection)
        await set_clock_of_ids(connection, before, timedelta())
        if months is not None:
            await connection.fetchval("SELECT ledger.make_partitions($1)", months)
        await set_clock_of_ids(connection, before, timedelta(milliseconds=1))

        async with connection.transaction(isolation=isolation):
            made = await ledger.submit_many(commands, connection=connection)

        assert len({(await ledger.get(one.run_id)).run_id for one in made}) == 4


async def test_who_may_not_make_a_partition_is_told_the_remedy(
    ledger: Ledger, connection: asyncpg.Connection
) -> None:
    await months_dropped(connection)
    await connection.execute(NOBODY_MAKES_PARTITIONS)

    for source in (None, connection):
        with pytest.raises(MissingPartition, match="runfold db upgrade"):
            await ledger.submit("parse", connection=source)


async def test_a_keyed_submit_repeated_after_its_deadline_gives_the_first_run_and_a_new_one_none(
    ledger: Ledger,
) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    first = await ledger.submit("parse", key="k", deadline=soon)
    await set_clock(ledger.pool, timedelta(hours=2))

    assert (await ledger.submit("parse", key="k", deadline=soon)).run_id == first.run_id
    with pytest.raises(InvalidValue, match="in the past"):
        await ledger.submit("parse", key="other", deadline=soon)
    with pytest.raises(InvalidValue, match="in the past"):
        await ledger.submit("parse", deadline=soon)


async def test_the_databases_clock_alone_says_whether_a_deadline_is_past(ledger: Ledger) -> None:
    await set_clock(ledger.pool, timedelta(hours=-2))

    run = await ledger.submit("parse", deadline=datetime.now(UTC) - timedelta(hours=1))

    assert run.state == State.PENDING


async def test_an_unknown_run_is_not_found_by_any_operation(ledger: Ledger) -> None:
    await ledger.submit("parse")
    (lease,) = await ledger.claim("w:1")
    unknown = uuid.UUID("01890000-0000-7000-8000-000000000000")

    for call in (ledger.get, ledger.history, ledger.cancel, ledger.verify):
        with pytest.raises(RunNotFound, match=str(unknown)):
            await call(unknown)
    with pytest.raises(RunNotFound):
        await ledger.state_at(unknown, 1)
    with pytest.raises(RunNotFound):
        await ledger.transition(unknown, State.CANCELLED)
    assert lease.token == 2


async def test_a_deadline_at_the_end_or_start_of_time_is_refused_or_kept_as_it_is(
    ledger: Ledger,
) -> None:
    for deadline in (
        datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(1, 1, 1, tzinfo=UTC),
    ):
        try:
            run = await ledger.submit("parse", deadline=deadline)
        except InvalidValue:
            continue
        assert run.deadline == deadline

    assert (await ledger.verify()).ok


async def test_the_run_that_a_submit_returns_is_the_run_that_is_stored(ledger: Ledger) -> None:
    """It is made of what the database told of it, without reading the row again."""
    given: list[dict[str, Any]] = [
        {},
        {"input": {"b": [1, 2.5, None, "é"], "a": {"t": True}}, "tags": ["x", 'y"\\']},
        {"input": (1, 2), "priority": 7, "delay": 60, "max_attempts": 9, "deadline": 3_600},
        {"key": "k"},
        {"input": 1, "key": "l"},
    ]
    for arguments in given:
        parent = await ledger.submit("parent")
        alone = await ledger.submit("first of its kind", **arguments)
        again = await ledger.submit("parse", **arguments) if "key" not in arguments else alone
        child = await ledger.submit("child", parent=parent.run_id)

        for run in (parent, alone, again, child):
            assert run == await ledger.get(run.run_id), arguments
