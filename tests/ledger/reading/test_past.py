"""Time travel: the fleet at any instant, and the differences of a run between two points."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from runfold.ledger import Ledger, Run, State, Submit
from runfold.ledger.errors import (
    BeforeFirstEvent,
    FutureInstant,
    InvalidValue,
    RunNotFound,
    UnknownKind,
    UnknownVersion,
)
from runfold.ledger.events import Event, StepCompleted
from runfold.ledger.reading import past
from runfold.ledger.reading.history import history
from tests.support.runs import claimed
from tests.support.waiting import passed

BEFORE_ALL = "00000000-0000-7000-8000-000000000000"
FAR = datetime(2099, 1, 1, tzinfo=UTC)


async def now(ledger: Ledger) -> datetime:
    """Return the database's time."""
    return datetime.fromisoformat(str(await ledger.pool.fetchval("SELECT clock_timestamp()")))


async def snapshots(ledger: Ledger) -> list[tuple[datetime, list[Run]]]:
    """Move a small fleet along; return its runs after each step, with the instant of the look."""
    taken: list[tuple[datetime, list[Run]]] = []

    async def take() -> None:
        listed = await ledger.runs()
        taken.append((await now(ledger), listed))

    await ledger.submit("a", {"n": 1}, key="key-a", tags=["t"])
    await take()
    b = await ledger.submit("b", tags=["t", "u"])
    await take()
    (lease,) = await ledger.claim("w:1", kinds=["a"])
    await take()
    await ledger.append(lease, StepCompleted(name="s", cost_usd=Decimal("0.5"), step_count=1))
    await ledger.transition(lease, State.COMPLETED, output={"ok": True})
    await take()
    await ledger.cancel(b.run_id)
    await ledger.submit("a")
    await take()
    return taken


async def test_the_fleet_at_every_instant_is_the_fleet_as_it_was_then(ledger: Ledger) -> None:
    for time, seen in await snapshots(ledger):
        assert await ledger.runs(at=time) == seen


async def test_every_filter_means_what_it_meant_then(ledger: Ledger) -> None:
    taken = await snapshots(ledger)
    filters: list[dict[str, Any]] = [
        {"state": State.RUNNING}, {"state": ["pending", "completed"]}, {"state": []},
        {"kind": "a"}, {"worker_id": "w:1"}, {"worker_id": "w:2"}, {"tag": "u"}, {"key": "key-a"},
        {"kind": "a", "state": "running", "tag": "t"},
    ]  # fmt: skip

    for time, seen in taken:
        for given in filters:
            assert await ledger.runs(at=time, **given) == [
                run for run in seen if _fits(run, **given)
            ], given


def _fits(run: Run, state: Any = None, **facts: Any) -> bool:
    states = [state] if isinstance(state, str) else state
    tag = facts.pop("tag", None)
    return (
        (states is None or run.state in states)
        and (tag is None or tag in run.tags)
        and all(getattr(run, name) == value for name, value in facts.items())
    )


async def test_the_past_comes_in_pages_even_where_few_runs_fit(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(past, "MAX_FOLDED", 4)
    await ledger.submit_many([Submit(kind="parse", priority=i % 7) for i in range(23)])
    leases = await ledger.claim("w:1", limit=9)
    time = await now(ledger)
    held = await ledger.runs(state="running")
    everything = await ledger.runs()
    await ledger.transition(leases[0], State.COMPLETED)
    await ledger.submit("parse")

    assert await ledger.runs(at=time) == everything
    assert (
        await ledger.runs(at=time, state="running")
        == await ledger.runs(at=time, worker_id="w:1")
        == held
    )
    first = await ledger.runs(at=time, state="running", limit=5)
    rest = await ledger.runs(at=time, state="running", limit=5, before=first.older)
    assert [*first, *rest] == held
    assert (first.newer, rest.newer, rest.older) == (None, rest[0].run_id, None)


async def test_a_page_of_the_past_folds_no_more_than_a_page_looks_through_and_none_that_came_later(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(past, "MAX_FOLDED", 2)
    monkeypatch.setattr(past, "EXAMINED", 4)
    made = [one.run_id for one in await ledger.submit_many([Submit(kind="parse")] * 7)]
    [lease] = await ledger.claim("w:1")
    assert lease.run_id == made[0]
    time = await now(ledger)
    await passed(ledger, time + timedelta(milliseconds=2))
    await ledger.submit_many([Submit(kind="parse")] * 5)

    page = await ledger.runs(at=time, state="running")
    assert (page, page.examined, page.older) == ([], 4, made[3])
    page = await ledger.runs(at=time, state="running", before=page.older)
    assert ([run.run_id for run in page], page.examined, page.older) == ([made[0]], None, None)
    page = await ledger.runs(at=time, state="running", after=BEFORE_ALL, limit=1)
    assert ([run.run_id for run in page], page.examined, page.newer) == ([made[0]], 4, made[3])
    page = await ledger.runs(at=time, limit=3)
    assert ([run.run_id for run in page], page.older) == (made[:3:-1], made[4])


async def test_a_time_before_the_first_event_or_in_the_future_is_an_error_and_gives_no_rows(
    ledger: Ledger,
) -> None:
    assert await ledger.runs(at=await now(ledger)) == []
    run = await ledger.submit("parse")
    early = run.created_at - timedelta(microseconds=1)

    with pytest.raises(BeforeFirstEvent) as before:
        await ledger.runs(at=early)
    with pytest.raises(FutureInstant) as future:
        await ledger.runs(at=FAR)
    with pytest.raises(InvalidValue, match="time zone"):
        await ledger.runs(at=datetime(2026, 1, 1))  # noqa: DTZ001  what is refused
    with pytest.raises(UnknownKind):
        await ledger.runs(at=await now(ledger), kind="prase")

    assert (before.value.asked, before.value.first) == (early, run.created_at)
    assert future.value.asked == FAR
    assert (await ledger.runs(at=run.created_at)) == [run]


async def test_a_diff_has_the_columns_that_changed_and_the_events_that_did_it(
    ledger: Ledger,
) -> None:
    lease = await claimed(ledger)
    await ledger.append(lease, StepCompleted(name="s", cost_usd=Decimal("0.5"), step_count=1))
    done = await ledger.transition(lease, State.COMPLETED, output={"ok": True})

    diff = await ledger.diff(lease.run_id, 2, 4)

    assert [event.version for event in diff.events] == [3, 4]
    assert diff.changes["state"] == ("running", "completed")
    assert diff.changes["cost_usd"] == (0, Decimal("0.5"))
    assert diff.changes["output"] == (None, {"ok": True})
    assert diff.changes["token"] == (2, None)
    assert "created_at" not in diff.changes
    assert diff == await ledger.diff(str(lease.run_id), diff.before.updated_at)
    assert diff.after == done
    same = await ledger.diff(lease.run_id, 3, 3)
    assert (same.changes, same.events) == ({}, [])


async def test_a_diff_reads_no_events_beyond_its_end(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page of an event asks for what that event changed: of a long run, it read all others."""
    lease = await claimed(ledger)
    for number in range(5):
        await ledger.append(lease, StepCompleted(name=f"s{number}"))
    read: list[int] = []

    async def watched(*asked: Any, **how: Any) -> list[Event]:
        events = await history(*asked, **how)
        read.extend(event.version for event in events)
        return events

    monkeypatch.setattr(past, "history", watched)
    await ledger.diff(lease.run_id, 2, 3)

    assert read == [3]


async def test_a_diff_needs_two_points_at_which_the_run_existed_in_their_order(
    ledger: Ledger,
) -> None:
    lease = await claimed(ledger)
    run = await ledger.get(lease.run_id)

    with pytest.raises(InvalidValue, match="before version 2"):
        await ledger.diff(lease.run_id, 2, 1)
    with pytest.raises(UnknownVersion):
        await ledger.diff(lease.run_id, 1, 3)
    with pytest.raises(UnknownVersion):
        await ledger.diff(lease.run_id, run.created_at - timedelta(seconds=1))
    with pytest.raises(FutureInstant):
        await ledger.diff(lease.run_id, 1, FAR)
    with pytest.raises(RunNotFound):
        await ledger.diff("01890000-0000-7000-8000-000000000000", 1)
