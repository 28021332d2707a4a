"""Reading: lists, histories, and a run as it was at any version and any time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from runfold.ledger import Lease, Ledger, Run, State, Submit
from runfold.ledger.errors import (
    FutureInstant,
    InvalidValue,
    RunNotFound,
    UnknownKind,
    UnknownVersion,
)
from runfold.ledger.events import NoteAdded, OpaqueEvent, StepCompleted
from tests.support.runs import TINY, claimed, types
from tests.support.waiting import passed

UNKNOWN = "01890000-0000-7000-8000-000000000000"


async def an_eventful_life(ledger: Ledger) -> list[Run]:
    """Lead one run through nearly everything; give the run after each event."""
    run = await ledger.submit(
        "parse",
        {"path": "a.py"},
        key="k",
        priority=3,
        max_attempts=5,
        deadline=3600,
        tags=["x", 'y"\\'],
    )
    seen = [run]

    async def then(action: Callable[[], Awaitable[object]]) -> None:
        await action()
        seen.append(await ledger.get(run.run_id))

    async def claim(ttl: float = 60) -> None:
        await then(lambda: ledger.claim("w:1", ttl=ttl))

    (lease,) = await ledger.claim("w:0")
    seen.append(await ledger.get(run.run_id))
    await then(lambda: ledger.heartbeat([lease]))
    await then(
        lambda: ledger.append(lease, StepCompleted(name="s", cost_usd=Decimal("0.5"), step_count=2))
    )
    await then(
        lambda: ledger.transition(lease, State.WAITING_TOOL, name="wc", content={"input": 1})
    )
    await then(lambda: ledger.transition(lease, State.RUNNING, output=2, cost_usd_delta=1))
    await then(lambda: ledger.retry(lease, error_code="E-1", error_detail="first"))
    await claim()
    second = (await ledger.get(run.run_id)).token
    assert second is not None
    await then(lambda: ledger.append(run.run_id, NoteAdded(text="hm"), actor="ann"))
    lease_2 = _with_token(lease, second)
    await then(lambda: ledger.release(lease_2))
    await claim(TINY)
    await passed(ledger, seen[-1].lease_until)
    await then(ledger.reap)
    await then(lambda: ledger.heartbeat([lease]))
    await claim()
    token = seen[-1].token
    assert token is not None
    third = _with_token(lease, token)
    await then(
        lambda: ledger.transition(
            third, State.WAITING_APPROVAL, park=True, wait=60, content={"prompt": "?"}
        )
    )
    asked = await ledger.get(run.run_id)
    await then(lambda: ledger.approve(asked, actor="ann", reason="ok"))
    await claim()
    token = seen[-1].token
    assert token is not None
    last = _with_token(lease, token)
    await then(lambda: ledger.cancel(run.run_id, actor="ann"))
    await then(
        lambda: ledger.transition(
            last,
            State.FAILED,
            error_code="E-2",
            error_detail={"a": 1},
            output=[1],
            output_sha256="ab" * 32,
        )
    )
    await then(lambda: ledger.append(run.run_id, NoteAdded(text="over"), actor="ann"))
    return seen


def _with_token(lease: Lease, token: int) -> Lease:
    return replace(lease, token=token, worker_id="w:1")


async def test_the_run_at_every_version_is_the_run_as_it_was_then(ledger: Ledger) -> None:
    seen = await an_eventful_life(ledger)
    run_id = seen[0].run_id

    assert [run.version for run in seen] == list(range(1, len(seen) + 1))
    for run in seen:
        assert await ledger.state_at(run_id, run.version) == run
        assert await ledger.state_at(str(run_id), run.version) == run


async def test_the_run_at_every_instant_is_the_run_as_it_was_then(ledger: Ledger) -> None:
    seen = await an_eventful_life(ledger)
    run_id = seen[0].run_id

    for before, run in zip([None, *seen], seen, strict=False):
        assert await ledger.state_at(run_id, run.updated_at) == run
        just_before = run.updated_at - timedelta(microseconds=1)
        if before is None:
            with pytest.raises(UnknownVersion):
                await ledger.state_at(run_id, just_before)
        elif just_before >= before.updated_at:
            assert await ledger.state_at(run_id, just_before) == before
    assert await ledger.state_at(run_id, datetime.now(UTC) - timedelta(milliseconds=1)) in seen
    with pytest.raises(FutureInstant, match="in the future"):
        await ledger.state_at(run_id, datetime(2099, 1, 1, tzinfo=UTC))


async def test_a_history_is_gapless_in_version_order_and_every_event_is_understood(
    ledger: Ledger,
) -> None:
    seen = await an_eventful_life(ledger)

    history = await ledger.history(seen[0].run_id)

    assert [event.version for event in history] == [run.version for run in seen]
    assert [event.hash for event in history] == [run.hash for run in seen]
    assert [event.recorded_at for event in history] == [run.updated_at for run in seen]
    assert sorted(event.position for event in history) == [event.position for event in history]
    assert [event.type for event in history if isinstance(event, OpaqueEvent)] == []
    assert [event.state for event in history if event.state] == [
        State.PENDING, State.RUNNING, State.WAITING_TOOL, State.RUNNING, State.PENDING,
        State.RUNNING, State.PENDING, State.RUNNING, State.PENDING, State.RUNNING,
        State.WAITING_APPROVAL, State.RUNNING, State.FAILED,
    ]  # fmt: skip


async def test_a_history_can_be_read_on_from_a_version(ledger: Ledger) -> None:
    lease = await claimed(ledger)
    await ledger.heartbeat([lease])
    full = await ledger.history(lease.run_id)

    assert await ledger.history(lease.run_id, after=1) == full[1:]
    assert await ledger.history(lease.run_id, after=1, limit=1) == full[1:2]
    assert await ledger.history(lease.run_id, heartbeats=False, limit=2) == full[:2]
    assert await ledger.history(str(lease.run_id), after=3) == []
    assert await ledger.history(lease.run_id, after=99) == []
    assert len(full) == 3
    with pytest.raises(InvalidValue, match="limit"):
        await ledger.history(lease.run_id, limit=0)
    with pytest.raises(RunNotFound):
        await ledger.history(UNKNOWN)


async def test_a_version_or_time_at_which_the_run_had_no_state_is_an_error_that_says_what_there_is(
    ledger: Ledger,
) -> None:
    run = await ledger.submit("parse")

    with pytest.raises(UnknownVersion, match="1 to 1") as by_version:
        await ledger.state_at(run.run_id, 2)
    with pytest.raises(UnknownVersion) as by_time:
        await ledger.state_at(run.run_id, run.created_at - timedelta(seconds=1))
    with pytest.raises(RunNotFound):
        await ledger.state_at(UNKNOWN, 1)

    assert (by_version.value.asked, by_version.value.newest) == (2, 1)
    assert by_time.value.asked == run.created_at - timedelta(seconds=1)


async def test_a_version_that_is_none_is_refused(ledger: Ledger) -> None:
    run = await ledger.submit("parse")
    versions: list[Any] = [0, -1, 2**31, True, 1.5, "1"]

    for version in versions:
        with pytest.raises(InvalidValue, match="version"):
            await ledger.state_at(run.run_id, version)


async def test_a_state_is_asked_for_by_version_or_by_time_with_a_zone(ledger: Ledger) -> None:
    run = await ledger.submit("parse")

    with pytest.raises(InvalidValue, match="version, which is a number, or an aware datetime"):
        await ledger.state_at(run.run_id, "noon")  # type: ignore[arg-type]
    with pytest.raises(InvalidValue, match="time zone"):
        await ledger.state_at(run.run_id, run.created_at.replace(tzinfo=None))


# -- lists -----------------------------------------------------------------------------------------


async def test_a_list_gives_the_newest_runs_first_and_goes_on_page_by_page(ledger: Ledger) -> None:
    made = [
        one.run_id
        for one in await ledger.submit_many([Submit(kind="parse", input=i) for i in range(25)])
    ]

    pages = [await ledger.runs(limit=10)]
    while len(pages[-1]) == 10:
        pages.append(await ledger.runs(limit=10, before=pages[-1][-1].run_id))

    assert [len(page) for page in pages] == [10, 10, 5]
    assert [run.run_id for page in pages for run in page] == made[::-1]
    assert pages[0][0] == await ledger.get(made[-1])
    assert await ledger.runs(before=made[0]) == []


async def test_a_list_is_narrowed_by_every_filter_and_by_all_together(ledger: Ledger) -> None:
    a = await ledger.submit("a", key="key-a", tags=["t", "u"])
    b = await ledger.submit("b", tags=["u"])
    c = await ledger.submit("a", tags=["t"])
    (lease,) = await ledger.claim("w:1", kinds=["b"])
    await ledger.cancel(c.run_id)

    async def found(**filters: object) -> list[str]:
        names = {a.run_id: "a", b.run_id: "b", c.run_id: "c"}
        return [names[run.run_id] for run in await ledger.runs(**filters)]  # type: ignore[arg-type]

    assert lease.run_id == b.run_id
    assert await found() == ["c", "b", "a"]
    assert await found(state=State.RUNNING) == await found(state="running") == ["b"]
    assert await found(state=["pending", State.CANCELLED]) == ["c", "a"]
    assert await found(state=[]) == []
    assert await found(kind="a") == ["c", "a"]
    assert await found(worker_id="w:1") == ["b"]
    assert await found(worker_id="w:2") == []
    assert await found(key="key-a") == ["a"]
    assert await found(kind="a", state="cancelled") == ["c"]
    assert await found(kind="a", before=b.run_id) == ["a"]
    assert await found(tag="u") == ["b", "a"]
    assert await found(tag="none") == []
    assert await found(kind="a", state="cancelled", tag="t") == ["c"]


async def test_a_list_shows_only_the_runs_of_its_project(ledger: Ledger, database: str) -> None:
    await ledger.submit("parse")

    async with Ledger.open(database, "other", create_project=True) as other:
        assert await other.runs() == []
        with pytest.raises(UnknownKind):
            await other.runs(kind="parse")


async def test_a_kind_that_no_run_ever_had_is_an_error_that_names_those_there_are(
    ledger: Ledger,
) -> None:
    await ledger.submit("parse")

    with pytest.raises(UnknownKind, match="parse") as caught:
        await ledger.runs(kind="prase")

    assert (caught.value.kind, caught.value.known) == ("prase", ("parse",))


async def test_reading_writes_nothing(ledger: Ledger) -> None:
    lease = await claimed(ledger)

    await ledger.runs()
    await ledger.get(lease.run_id)
    await ledger.state_at(lease.run_id, 1)
    assert (await ledger.verify()).ok
    assert (await ledger.verify(lease.run_id)).ok

    assert await types(ledger, lease.run_id) == ["run.submitted", "lease.acquired"]


async def test_a_history_comes_without_its_heartbeats_on_request(ledger: Ledger) -> None:
    lease = await claimed(ledger)
    for _ in range(3):
        await ledger.heartbeat([lease])
    await ledger.transition(lease, State.COMPLETED)

    whole = await ledger.history(lease.run_id)
    told = await ledger.history(lease.run_id, heartbeats=False)

    assert [event.version for event in told] == [1, 2, 6]
    assert told == [event for event in whole if event.type != "lease.heartbeat"]
    assert [
        event.version for event in await ledger.history(lease.run_id, after=2, heartbeats=False)
    ] == [6]
