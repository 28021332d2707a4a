"""Claiming: who gets which run."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from uuid import UUID

import pytest

from runfold.ledger import Ledger, State, Submit
from runfold.ledger.events import LeaseAcquired, NoteAdded
from runfold.ledger.operations.claim import Marks
from tests.support.clock import set_clock
from tests.support.runs import abandoned, event_count, newest
from tests.support.waiting import passed, until


async def test_the_oldest_run_of_the_lowest_priority_number_goes_first(ledger: Ledger) -> None:
    late = await ledger.submit("parse", priority=5)
    first = await ledger.submit("parse")
    second = await ledger.submit("parse")

    leases = await ledger.claim("w:1", limit=3)

    assert [lease.run_id for lease in leases] == [first.run_id, second.run_id, late.run_id]


async def test_a_claimed_run_is_running_under_a_token_that_is_the_version_of_its_event(
    ledger: Ledger,
) -> None:
    submitted = await ledger.submit("parse", {"path": "a.py"})

    (lease,) = await ledger.claim("w:1")
    run = await ledger.get(submitted.run_id)

    assert (run.state, run.token, run.worker_id, run.attempt_count) == (State.RUNNING, 2, "w:1", 1)
    assert (lease.token, lease.attempt, lease.input) == (2, 1, {"path": "a.py"})
    assert run.lease_until == lease.until


async def test_the_lease_is_an_event_with_who_until_when_and_which_attempt(ledger: Ledger) -> None:
    run = await ledger.submit("parse", max_attempts=4, priority=3)

    (lease,) = await ledger.claim("w:1", ttl=30)
    event = await newest(ledger, run.run_id, LeaseAcquired)
    now = await ledger.get(run.run_id)

    assert (event.actor, event.worker_id, event.token, event.attempt) == (
        "w:1",
        "w:1",
        event.version,
        1,
    )
    assert event.recorded_at is not None
    assert event.lease_until == lease.until == event.recorded_at + timedelta(seconds=30)
    assert (now.started_at, now.heartbeat_at, now.available_at) == (
        event.recorded_at,
        event.recorded_at,
        None,
    )
    assert (lease.max_attempts, lease.priority, lease.kind, lease.ttl) == (
        4,
        3,
        "parse",
        timedelta(seconds=30),
    )
    assert not lease.cancel_requested


async def test_without_a_ttl_the_setting_counts_and_a_timedelta_is_as_good_as_seconds(
    ledger: Ledger,
) -> None:
    await ledger.submit_many([Submit(kind="parse")] * 2)

    (by_default,) = await ledger.claim("w:1")
    (by_timedelta,) = await ledger.claim("w:1", ttl=timedelta(minutes=2))

    assert (by_default.ttl, by_timedelta.ttl) == (timedelta(seconds=60), timedelta(minutes=2))


async def test_nothing_to_claim_is_an_empty_list_and_writes_nothing(ledger: Ledger) -> None:
    assert await ledger.claim("w:1") == []
    await ledger.submit("parse")
    await ledger.claim("w:1")
    before = await event_count(ledger)

    assert await ledger.claim("w:2", limit=100) == []
    assert await ledger.claim("w:2", kinds=["parse", "other"], limit=100) == []

    assert await event_count(ledger) == before


async def test_a_claim_takes_no_more_than_its_limit(ledger: Ledger) -> None:
    made = await ledger.submit_many([Submit(kind=f"k{i % 3}", priority=i % 2) for i in range(30)])

    batches = [await ledger.claim("w:1", limit=7) for _ in range(6)]

    assert [len(batch) for batch in batches] == [7, 7, 7, 7, 2, 0]
    order = [lease.run_id for batch in batches for lease in batch]
    wanted = sorted((i % 2, one.run_id) for i, one in enumerate(made))
    assert order == [run_id for _, run_id in wanted]


async def test_a_claim_by_kind_takes_only_these_kinds(ledger: Ledger) -> None:
    a, b, c = [await ledger.submit(kind) for kind in ("a", "b", "c")]

    nothing = await ledger.claim("w:1", kinds=["unheard-of"], limit=5)
    no_kind = await ledger.claim("w:1", kinds=[], limit=5)
    two = await ledger.claim("w:1", kinds=["c", "a", "c", "unheard-of"], limit=5)
    rest = await ledger.claim("w:1", limit=5)

    assert (nothing, no_kind) == ([], [])
    assert [lease.run_id for lease in two] == [a.run_id, c.run_id]
    assert [lease.run_id for lease in rest] == [b.run_id]


async def test_a_run_of_a_kind_that_is_new_since_the_last_claim_is_found(ledger: Ledger) -> None:
    await ledger.submit_many([Submit(kind="old")] * 5)
    await ledger.claim("w:1", limit=2)
    new = await ledger.submit("new", priority=0)

    leases = await ledger.claim("w:1", limit=10)

    assert new.run_id in {lease.run_id for lease in leases}


async def test_a_delayed_run_is_claimable_when_its_time_has_come_and_not_before(
    ledger: Ledger,
) -> None:
    far = await ledger.submit("parse", delay=3600)
    near = await ledger.submit("parse", delay=60)

    early = await ledger.claim("w:1", limit=5)
    await set_clock(ledger.pool, timedelta(seconds=61))
    later = await ledger.claim("w:1", limit=5)

    assert early == []
    assert [lease.run_id for lease in later] == [near.run_id]
    assert (await ledger.get(far.run_id)).state == State.PENDING


async def test_a_delayed_run_does_not_hold_up_the_runs_behind_it(ledger: Ledger) -> None:
    await ledger.submit("parse", delay=3600)
    behind = await ledger.submit("parse", priority=9)

    (lease,) = await ledger.claim("w:1", limit=5)

    assert lease.run_id == behind.run_id


async def test_due_runs_of_every_priority_are_found_among_those_that_sleep(ledger: Ledger) -> None:
    priorities = [7, 0, 3, 2_000_000_000, 3, 0]
    due = await ledger.submit_many(
        [Submit(kind="parse", priority=priority, delay=0.001) for priority in priorities]
    )
    await ledger.submit_many([Submit(kind="parse", priority=i, delay=3600) for i in range(9)])
    fresh = await ledger.submit("parse", priority=3)
    await passed(ledger, (await ledger.get(due[-1].run_id)).available_at)

    claims = [await ledger.claim("w:1", limit=2) for _ in range(4)]

    runs = [run.run_id for run in due] + [fresh.run_id]
    expected = [run for _, run in sorted(zip([*priorities, 3], runs, strict=True))]
    assert [lease.run_id for leases in claims for lease in leases] == expected


async def test_a_kind_that_is_named_twice_is_looked_at_once(ledger: Ledger) -> None:
    await ledger.submit_many([Submit(kind="parse")] * 3)

    rows = await ledger.pool.fetch(
        "SELECT * FROM ledger.claim($1, 'w:1', '{parse,parse}', 3, '60s', '{parse,parse}', '{0,0}',"
        " ARRAY[$2, $2]::uuid[], ARRAY[NULL, NULL]::timestamptz[])",
        ledger.project_id,
        UUID(int=0),
    )

    assert len({row["run_id"] for row in rows}) == 3


async def test_an_older_run_that_this_ledger_requeued_is_found_at_once_and_goes_first(
    ledger: Ledger,
) -> None:
    first, *_ = await ledger.submit_many([Submit(kind="parse")] * 10)
    (lease, *_) = await ledger.claim("w:1", limit=3)
    await ledger.release(lease)

    (again, *_) = await ledger.claim("w:1", limit=2)

    assert again.run_id == first.run_id


async def test_an_older_run_that_another_ledger_requeued_is_found_before_long(
    ledger: Ledger, database: str
) -> None:
    made = await ledger.submit_many([Submit(kind="parse")] * 300)
    (oldest, *_) = await ledger.claim("w:1", limit=3)
    found = []

    async with Ledger.open(database, ledger.project_id) as other:
        await other.release(oldest)

    async def claims_it() -> bool:
        found.extend([lease.run_id for lease in await ledger.claim("w:1", limit=1)])
        return made[0].run_id in found

    await until(claims_it)
    assert len(found) < 300


async def test_a_more_urgent_run_goes_first_even_behind_the_mark(ledger: Ledger) -> None:
    await ledger.submit_many([Submit(kind="parse", priority=5)] * 10)
    await ledger.claim("w:1", limit=3)
    urgent = await ledger.submit("parse", priority=4)
    most_urgent = await ledger.submit("parse", priority=0)
    lazy = await ledger.submit("parse", priority=6)

    leases = await ledger.claim("w:1", limit=10)

    assert [lease.run_id for lease in leases[:2]] == [most_urgent.run_id, urgent.run_id]
    assert leases[-1].run_id == lazy.run_id
    assert len(leases) == 10


async def test_the_mark_of_one_kind_hides_no_run_of_another(ledger: Ledger) -> None:
    other = await ledger.submit("a")
    await ledger.submit_many([Submit(kind="b")] * 6)
    await ledger.claim("w:1", limit=2, kinds=["b"])
    await ledger.claim("w:1", limit=2, kinds=["b"])

    (lease, *_) = await ledger.claim("w:1", limit=2)

    assert lease.run_id == other.run_id


async def test_a_claim_that_ends_short_at_the_mark_looks_from_the_start_again(
    ledger: Ledger, database: str
) -> None:
    await ledger.submit_many([Submit(kind="parse")] * 4)
    (oldest, *_) = await ledger.claim("w:1", limit=3)
    async with Ledger.open(database, ledger.project_id) as other:
        await other.release(oldest)

    leases = await ledger.claim("w:1", limit=4)

    assert oldest.run_id in {lease.run_id for lease in leases}
    assert len(leases) == 2


async def test_each_attempt_is_counted_when_it_is_leased_from_pending(ledger: Ledger) -> None:
    lease = await abandoned(ledger)
    await ledger.append(lease, NoteAdded(text="begun"))
    await ledger.reap()

    (again,) = await ledger.claim("w:2")

    assert (lease.attempt, again.attempt) == (1, 2)
    assert again.token > lease.token
    assert (await ledger.get(lease.run_id)).attempt_count == 2


async def test_a_lapsed_lease_is_nobodys_to_claim_before_it_is_reaped(ledger: Ledger) -> None:
    await abandoned(ledger)

    assert await ledger.claim("w:2") == []


async def test_runs_of_other_projects_are_never_claimed(ledger: Ledger, database: str) -> None:
    async with Ledger.open(database, "other", create_project=True) as other:
        await other.submit("parse")
        assert await ledger.claim("w:1", limit=5) == []
        (lease,) = await other.claim("w:1", limit=5)
        done = await other.transition(lease, State.COMPLETED, cost_usd_delta=Decimal("0.000001"))

    assert done.project_id == "other"


def test_claims_from_the_beginning_take_a_twentieth_of_the_time_at_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    marks = Marks()
    assert marks.current() == Marks.NONE
    marks.remember(
        [{"kind": "parse", "priority": 0, "run_id": UUID(int=1), "due_at": None}], full=True
    )

    marks.rescanned(0.3)  # it walked what an old snapshot keeps
    now += 5.9
    assert marks.current().kinds == ["parse"]
    now += 0.2
    assert marks.current() == Marks.NONE
