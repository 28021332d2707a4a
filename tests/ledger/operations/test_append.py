"""Appending: notes, steps and a user's own events."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Literal

import pytest

from runfold.ledger import Ledger, State, Transition
from runfold.ledger.errors import (
    DuplicateKey,
    IllegalTransition,
    InvalidValue,
    LeaseLost,
    LeaseRequired,
    PayloadTooLarge,
    RunNotFound,
    VersionConflict,
)
from runfold.ledger.events import (
    CATALOGUE,
    Event,
    NoteAdded,
    OpaqueEvent,
    RunCompleted,
    StepCompleted,
    StepFailed,
    UserEvent,
    WriteRefused,
    upcaster,
)
from runfold.ledger.lifecycle import RESERVED, TERMINAL
from tests.support.runs import brought_to, claimed, event_count, newest, superseded, types, waiting


class PageRead(UserEvent):
    """A page was read."""

    type: Literal["acme.page_read"] = "acme.page_read"
    page: int
    words: tuple[str, ...] = ()


class Renamed(UserEvent):
    """Has fields that share their names with facts of the ledger's own events."""

    type: Literal["acme.renamed"] = "acme.renamed"
    name: str
    token: str
    worker_id: int
    tags: dict[str, int]


async def test_a_note_may_be_added_to_a_run_in_any_state_and_changes_nothing_else(
    ledger: Ledger,
) -> None:
    for state in reversed(State):  # the pending run last: it would be the next to be claimed
        run_id, _ = await brought_to(ledger, state)
        before = await ledger.get(run_id)

        receipt = await ledger.append(run_id, NoteAdded(text="looks fine"), actor="ann")
        event = await newest(ledger, run_id, NoteAdded)
        after = await ledger.get(run_id)

        assert (event.text, event.actor, event.state) == ("looks fine", "ann", None)
        assert (receipt.run_id, receipt.version, receipt.hash) == (
            run_id,
            before.version + 1,
            event.hash,
        )
        assert (after.state, after.token, after.completed_at) == (
            before.state,
            before.token,
            before.completed_at,
        )


async def test_a_worker_may_add_a_note_under_its_lease(ledger: Ledger) -> None:
    lease = await claimed(ledger)

    await ledger.append(lease, NoteAdded(text="slow"))
    event = await newest(ledger, lease.run_id, NoteAdded)

    assert (event.text, event.actor) == ("slow", "w:1")


async def test_a_step_is_recorded_with_what_it_gave_and_cost(ledger: Ledger) -> None:
    lease = await claimed(ledger)

    await ledger.append(
        lease, StepCompleted(name="read", output=[1], cost_usd=Decimal("0.1"), step_count=2)
    )
    done = await newest(ledger, lease.run_id, StepCompleted)
    await ledger.append(
        lease, StepFailed(name="parse", error_code="E-SYNTAX", error_detail={"line": 3})
    )
    failed = await newest(ledger, lease.run_id, StepFailed)
    run = await ledger.get(lease.run_id)

    assert (done.name, done.output, done.token, done.actor) == ("read", [1], lease.token, "w:1")
    assert (failed.name, failed.error_code, failed.error_detail) == (
        "parse",
        "E-SYNTAX",
        {"line": 3},
    )
    assert (run.cost_usd, run.step_count, run.state, run.error_code) == (
        Decimal("0.1"),
        2,
        State.RUNNING,
        None,
    )


@pytest.mark.parametrize("state", [State.WAITING_TOOL, State.WAITING_APPROVAL])
async def test_a_step_may_be_recorded_while_a_held_run_waits(ledger: Ledger, state: State) -> None:
    lease = await waiting(ledger, state, park=False)

    await ledger.append(lease, StepCompleted(name="meanwhile"))

    assert (await types(ledger, lease.run_id))[-1] == "step.completed"


async def test_a_step_needs_the_lease(ledger: Ledger) -> None:
    lease = await claimed(ledger)

    with pytest.raises(LeaseRequired):
        await ledger.append(lease.run_id, StepCompleted(name="read"))

    assert await types(ledger, lease.run_id) == ["run.submitted", "lease.acquired"]


async def test_a_step_of_a_run_that_nobody_holds_is_refused(ledger: Ledger) -> None:
    for state in (*sorted(TERMINAL), State.PENDING):
        run_id, _ = await brought_to(ledger, state)
        before = await event_count(ledger)

        with pytest.raises((LeaseRequired, IllegalTransition)):
            await ledger.append(run_id, StepCompleted(name="read"))

        assert await event_count(ledger) == before


@pytest.mark.parametrize(
    "event", [StepCompleted(name="read"), NoteAdded(text="x"), PageRead(page=1)]
)
async def test_a_zombie_can_append_nothing_and_its_try_is_recorded_once(
    ledger: Ledger, event: Event
) -> None:
    old, new = await superseded(ledger)

    for _ in range(2):
        with pytest.raises(LeaseLost):
            await ledger.append(old, event)
    refused = await newest(ledger, old.run_id, WriteRefused)

    assert (refused.name, refused.token, refused.worker_id) == (event.type, old.token, "w:zombie")
    assert (await types(ledger, old.run_id)).count("write.refused") == 1
    assert (await ledger.get(old.run_id)).token == new.token


# -- a user's own types ----------------------------------------------------------------------------


async def test_a_users_own_event_comes_back_as_it_was_appended(ledger: Ledger) -> None:
    run = await ledger.submit("parse")

    await ledger.append(
        run.run_id, PageRead(page=3, words=("ä", "\\"), data={"x": None}), actor="ann"
    )
    event = await newest(ledger, run.run_id, PageRead)

    assert (event.page, event.words, event.data, event.actor) == (
        3,
        ("ä", "\\"),
        {"x": None},
        "ann",
    )
    assert (event.version, event.schema_version, event.state) == (2, 1, None)


async def test_a_users_own_event_appended_under_a_lease_comes_back_as_it_was(
    ledger: Ledger,
) -> None:
    lease = await claimed(ledger)

    await ledger.append(lease, PageRead(page=3, cost_usd=Decimal("0.5"), step_count=1))
    event = await newest(ledger, lease.run_id, PageRead)
    run = await ledger.get(lease.run_id)

    assert (event.page, event.cost_usd, event.step_count) == (3, Decimal("0.5"), 1)
    assert (run.cost_usd, run.step_count) == (Decimal("0.5"), 1)


async def test_a_users_own_fields_may_share_names_with_facts_of_the_ledger(ledger: Ledger) -> None:
    lease = await claimed(ledger)
    given = Renamed(name="x" * 300, token="t", worker_id=7, tags={"a": 1})  # noqa: S106  a field of that name, no password

    await ledger.append(lease, given)
    event = await newest(ledger, lease.run_id, Renamed)

    assert (event.name, event.token, event.worker_id, event.tags) == ("x" * 300, "t", 7, {"a": 1})


async def test_a_users_own_event_of_an_older_schema_is_upcast(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Measured(UserEvent):
        type: Literal["acme.measured"] = "acme.measured"
        inches: float

    run = await ledger.submit("parse")
    await ledger.append(run.run_id, Measured(inches=2))

    class MeasuredInCm(UserEvent):
        SCHEMA_VERSION = 2
        type: Literal["acme.measured"] = "acme.measured"
        cm: float

    @upcaster("acme.measured", 1)
    def to_cm(content: dict[str, Any]) -> dict[str, Any]:
        return {"cm": content["inches"] * 2.54}

    await ledger.append(run.run_id, MeasuredInCm(cm=1))
    _, old, new = await ledger.history(run.run_id)

    assert isinstance(old, MeasuredInCm)
    assert isinstance(new, MeasuredInCm)
    assert (old.cm, old.schema_version, new.cm, new.schema_version) == (5.08, 1, 1, 2)
    monkeypatch.setitem(CATALOGUE, "acme.measured", Measured)
    _, old, newer = await ledger.history(run.run_id)
    assert isinstance(old, Measured)
    assert isinstance(newer, OpaqueEvent)
    assert newer.raw == {"cm": 1}


@pytest.mark.parametrize("error", [KeyError, ValueError, ZeroDivisionError])
async def test_an_upcaster_that_fails_hides_neither_its_event_nor_the_others(
    ledger: Ledger, error: type[Exception]
) -> None:
    type_ = f"acme.broken_{error.__name__.lower()}"

    class Broken(UserEvent):
        type: str = type_
        x: int

    run = await ledger.submit("parse")
    await ledger.append(run.run_id, Broken(x=1))

    @upcaster(type_, 1)
    def fails(_: dict[str, Any]) -> dict[str, Any]:
        raise error("cannot")

    class BrokenLater(UserEvent):
        SCHEMA_VERSION = 2
        type: str = type_
        x: int

    await ledger.append(run.run_id, BrokenLater(x=2))
    _, old, new = await ledger.history(run.run_id)

    assert isinstance(old, OpaqueEvent)
    assert (old.type, old.raw) == (type_, {"x": 1})
    assert isinstance(new, BrokenLater)


async def test_an_event_of_a_type_that_this_code_does_not_know_is_shown_as_it_is_stored(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await ledger.submit("parse")
    await ledger.append(run.run_id, PageRead(page=9))
    monkeypatch.delitem(CATALOGUE, "acme.page_read")

    event = await newest(ledger, run.run_id, OpaqueEvent)

    assert (event.type, event.raw) == ("acme.page_read", {"page": 9, "words": []})


@pytest.mark.parametrize("prefix", sorted(RESERVED))
def test_the_ledgers_own_prefixes_cannot_be_taken(prefix: str) -> None:
    taken = f"{prefix}.mine"

    with pytest.raises(InvalidValue, match=prefix):
        type(
            "Mine",
            (UserEvent,),
            {"type": taken, "__annotations__": {"type": str}, "__module__": __name__},
        )

    assert taken not in CATALOGUE


@pytest.mark.parametrize(
    "bad",
    [
        "acme",
        "Acme.read",
        "acme.",
        ".read",
        "acme read",
        "acme.réad",
        "a." + "x" * 79,
        "acme.read\n",
    ],
)
def test_a_type_that_is_no_dotted_lower_case_name_cannot_be_taken(bad: str) -> None:
    with pytest.raises(InvalidValue, match="event type"):
        type(
            "Mine",
            (UserEvent,),
            {"type": bad, "__annotations__": {"type": str}, "__module__": __name__},
        )

    assert bad not in CATALOGUE


async def test_a_users_own_event_cannot_follow_the_end_of_a_run(ledger: Ledger) -> None:
    for state in sorted(TERMINAL):
        run_id, _ = await brought_to(ledger, state)
        before = await event_count(ledger)

        with pytest.raises(IllegalTransition, match="ended"):
            await ledger.append(run_id, PageRead(page=1))

        assert await event_count(ledger) == before


async def test_a_users_own_event_may_be_appended_by_anyone_while_the_run_is_open(
    ledger: Ledger,
) -> None:
    for state in sorted(set(State) - TERMINAL, reverse=True):
        if state != State.PENDING:
            run_id, _ = await brought_to(ledger, state)
            await ledger.append(run_id, PageRead(page=1))
            assert (await ledger.get(run_id)).state == state
    run_id, _ = await brought_to(ledger, State.PENDING)
    await ledger.append(run_id, PageRead(page=1))

    assert (await ledger.get(run_id)).state == State.PENDING


async def test_what_moves_a_run_cannot_be_appended(ledger: Ledger) -> None:
    lease = await claimed(ledger)

    for event in (RunCompleted(), WriteRefused(name="x", token=1), Event(type="acme.x")):
        with pytest.raises(InvalidValue):
            await ledger.append(lease, event)

    assert await types(ledger, lease.run_id) == ["run.submitted", "lease.acquired"]


async def test_a_type_that_no_subclass_could_have_cannot_be_appended_either(ledger: Ledger) -> None:
    lease = await claimed(ledger)

    for type_ in (
        "run.completed",
        "step.mine",
        "note.mine",
        "x",
        "acme",
        "No Such: Type!",
        "a\x00.b",
        "a." + "x" * 90,
    ):
        with pytest.raises(InvalidValue, match="event type"):
            await ledger.append(lease, UserEvent(type=type_))

    assert await types(ledger, lease.run_id) == ["run.submitted", "lease.acquired"]


# -- versions, keys, totals ------------------------------------------------------------------------


async def test_an_append_that_expects_another_version_is_a_conflict(ledger: Ledger) -> None:
    run = await ledger.submit("parse")
    await ledger.append(run.run_id, NoteAdded(text="one"), expected_version=1)

    with pytest.raises(VersionConflict) as caught:
        await ledger.append(run.run_id, NoteAdded(text="two"), expected_version=1)

    assert (caught.value.expected, caught.value.actual) == (1, 2)
    assert len(await ledger.history(run.run_id)) == 2


async def test_the_same_key_and_content_give_the_first_receipt(ledger: Ledger) -> None:
    lease = await claimed(ledger)
    step = StepCompleted(name="read", output=1, cost_usd=Decimal("0.1"))
    first = await ledger.append(lease, step, key="k")
    await ledger.append(lease, NoteAdded(text="between"))

    again = await ledger.append(lease, step, key="k")

    assert again == first
    assert (await ledger.get(lease.run_id)).cost_usd == Decimal("0.1")


async def test_the_same_key_with_other_content_is_a_duplicate(ledger: Ledger) -> None:
    lease = await claimed(ledger)
    first = await ledger.append(lease, StepCompleted(name="read", output=1), key="k")
    before = await event_count(ledger)

    for other in (
        StepCompleted(name="read", output=2),
        StepCompleted(name="reap", output=1),
        NoteAdded(text="x"),
    ):
        with pytest.raises(DuplicateKey) as caught:
            await ledger.append(lease, other, key="k")
        assert (caught.value.key, caught.value.version) == ("k", first.version)
    (result,) = await ledger.transition_many([Transition(lease, State.COMPLETED, key="k")])

    assert isinstance(result, DuplicateKey)
    assert await event_count(ledger) == before


async def test_an_append_takes_no_total_below_zero(ledger: Ledger) -> None:
    lease = await claimed(ledger)

    with pytest.raises(InvalidValue, match="below zero"):
        await ledger.append(lease, PageRead(page=1, cost_usd=Decimal(-1)))
    with pytest.raises(InvalidValue, match="below zero"):
        await ledger.append(lease, PageRead(page=1, step_count=-1))

    assert await event_count(ledger) == 2


async def test_content_that_is_too_large_or_cannot_be_stored_is_refused(ledger: Ledger) -> None:
    run = await ledger.submit("parse")

    with pytest.raises(PayloadTooLarge, match="65,536"):
        await ledger.append(run.run_id, NoteAdded(text="x" * 65_536))
    with pytest.raises(InvalidValue, match="NUL"):
        await ledger.append(run.run_id, NoteAdded(text="a\x00b"))
    with pytest.raises(InvalidValue, match="NaN"):
        await ledger.append(run.run_id, PageRead(page=1, data={"x": float("nan")}))
    with pytest.raises(RunNotFound):
        await ledger.append("01890000-0000-7000-8000-000000000000", NoteAdded(text="x"))

    assert await event_count(ledger) == 1
