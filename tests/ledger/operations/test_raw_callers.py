"""A worker's login that calls the functions by hand is held to the rules and harms nobody."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from runfold.ledger import Lease, Ledger, State
from runfold.ledger.errors import IllegalTransition, LeaseLost
from runfold.ledger.events import NoteAdded, OpaqueEvent, WriteRefused
from runfold.ledger.postgres.urls import driver_url
from tests.support.databases import PROJECT
from tests.support.decisions import decided
from tests.support.logins import with_login
from tests.support.runs import claimed, superseded

INVALID = "22023"
NOT_TEXT = "22P05"
RIGHTS = ("submit", "work", "read", "decide")


class RawCaller:
    """A worker's login that calls the functions by hand."""

    def __init__(self, connection: asyncpg.Connection, url: str) -> None:
        self._connection = connection
        self.url = url

    async def submit(self, **given: Any) -> list[Any]:
        """Call `ledger.submit` for one run."""
        facts = {
            "input": None,
            "priority": 0,
            "delay": None,
            "max_attempts": 3,
            "deadline": None,
            **given,
        }
        return await self._connection.fetch(
            "SELECT * FROM ledger.submit($1, 'mallory', '{raw}', ARRAY[$2::text], NULL, "
            "ARRAY[$3::int], ARRAY[$4::text]::interval[], ARRAY[$5::int], "
            "ARRAY[$6::text]::timestamptz[], NULL, NULL)",
            PROJECT, *facts.values(),
        )  # fmt: skip

    async def append(self, run_id: Any, actor: str | None, body: str) -> list[Any]:
        """Call `ledger.append` for one note, without a lease."""
        return await self._connection.fetch(
            "SELECT * FROM ledger.append($1, $2, ARRAY[$3::uuid], NULL, '{note.added}', '{1}', "
            "NULL, NULL, ARRAY[$4::text], NULL, NULL, NULL, NULL)",
            PROJECT, actor, run_id, body,
        )  # fmt: skip

    async def transition(self, run_id: Any, state: str, **given: Any) -> list[Any]:
        """Call `ledger.transition` for one run."""
        facts = {
            "actor": None, "token": None, "wait": None, "outcome": None, "body": None,
            "expected": None, "worker": None, **given,
        }  # fmt: skip
        return await self._connection.fetch(
            "SELECT * FROM ledger.transition($1, ARRAY[$4::text], ARRAY[$2::uuid], "
            "ARRAY[$5::int], ARRAY[$3::text], NULL, NULL, NULL, ARRAY[$8::text], NULL, NULL, "
            "NULL, ARRAY[$6::text]::interval[], ARRAY[$7::text], ARRAY[$9::int], NULL, "
            "ARRAY[$10::text])",
            PROJECT, run_id, state, *facts.values(),
        )  # fmt: skip

    async def decide(self, run_id: Any, request: int | None, **given: Any) -> Any:
        """Call `ledger.decide`."""
        return await decided(self._connection, run_id, request, **given)

    async def refuse(self, run_id: Any, *, token: int, name: str) -> None:
        """Call `ledger.refuse` for one run."""
        await self._connection.execute(
            "SELECT ledger.refuse($1, 'mallory', $2, ARRAY[$3::uuid], ARRAY[$4::int])",
            PROJECT,
            name,
            run_id,
            token,
        )

    async def reap(self, actor: str) -> None:
        """Call `ledger.reap`."""
        await self._connection.execute("SELECT ledger.reap($1, $2, 1)", PROJECT, actor)


@pytest.fixture
async def caller(database: str) -> AsyncIterator[RawCaller]:
    """A login that may submit, work, read and decide, in anybody's name."""
    async with with_login(database, "runfold_worker", rights=RIGHTS) as url:
        opened = await asyncpg.connect(driver_url(url))
        yield RawCaller(opened, url)
        await opened.close()


async def refusals(ledger: Ledger, lease: Lease) -> list[tuple[int | None, str | None]]:
    """Return the token and the operation of every refusal that is on record."""
    history = await ledger.history(lease.run_id)
    return [(event.token, event.name) for event in history if isinstance(event, WriteRefused)]


async def refused(call: Any) -> str:
    """Return the SQLSTATE by which a call was refused."""
    with pytest.raises(asyncpg.PostgresError) as caught:
        await call
    return str(caught.value.sqlstate)


FORGED = {
    "type": "approval.granted", "actor": "ann", "recorded_at": "2020-01-01T00:00:00Z",
    "state": "running", "version": 2, "text": "innocent",
}  # fmt: skip


async def test_what_a_payload_says_of_a_fact_does_not_pass_for_the_fact(
    ledger: Ledger, caller: RawCaller, subtests: pytest.Subtests
) -> None:
    for name in [*FORGED, "token", "hash"]:
        with subtests.test(name):
            run = await ledger.submit("parse")
            body = {name: FORGED.get(name, "00")}

            assert await caller.append(run.run_id, "mallory", json.dumps(body))

            event = (await ledger.history(run.run_id))[-1]
            assert (event.type, event.actor, event.version, event.state) == (
                "note.added",
                "mallory",
                2,
                None,
            )
            if name == "text":
                assert isinstance(event, NoteAdded)
            else:
                assert isinstance(event, OpaqueEvent)
                assert event.raw == body


async def test_a_call_without_a_lease_and_a_name_is_not_the_holders(
    ledger: Ledger, caller: RawCaller
) -> None:
    lease = await claimed(ledger)
    asked = await ledger.transition(lease, State.WAITING_APPROVAL, content={"prompt": "Go?"})

    unnamed = caller.transition(lease.run_id, "running", expected=asked.version)
    assert await refused(unnamed) == INVALID
    assert await refused(caller.decide(lease.run_id, asked.version, actor=None)) == INVALID
    assert await refused(caller.append(lease.run_id, None, "{}")) == INVALID

    assert (await ledger.get(lease.run_id)).state == State.WAITING_APPROVAL


async def test_a_wait_ends_as_the_state_machine_knows_and_within_ten_years(
    ledger: Ledger, caller: RawCaller
) -> None:
    async with Ledger.open(caller.url, PROJECT) as own:
        lease: Lease = await claimed(own)
    held = {"token": lease.token, "worker": lease.worker_id}

    for why, wrong in (
        ("wait_outcome must be", {"wait": "1 second", "outcome": "x"}),
        ("a wait must end within ten years", {"wait": "9000 years", "outcome": "timeout"}),
        ("a wait must end within ten years", {"wait": "-1 second"}),
    ):
        with pytest.raises(asyncpg.InvalidParameterValueError, match=why):
            await caller.transition(lease.run_id, "waiting_approval", **held, **wrong)
    for state in ("waiting_tool", "completed"):  # held, so that its worker answers for it
        with pytest.raises(asyncpg.InvalidParameterValueError, match="may have an end"):
            await caller.transition(lease.run_id, state, **held, wait="1 second")
    assert await caller.transition(lease.run_id, "waiting_approval", **held, wait="1 second")


async def test_a_state_that_does_not_exist_is_named(ledger: Ledger, caller: RawCaller) -> None:
    run = await ledger.submit("parse")

    with pytest.raises(asyncpg.InvalidParameterValueError, match=r"'\{complete\}' have one that"):
        await caller.transition(run.run_id, "complete", actor="mallory")


async def test_content_without_an_input_is_no_input(ledger: Ledger, caller: RawCaller) -> None:
    assert await refused(caller.submit(input='{"image": "a.png"}')) == INVALID
    assert await ledger.runs() == []

    for kept in ('{"input": 1}', '{ "input": 1 }', "{}", f'{{"parent": "{UUID(int=1)}"}}', None):
        assert len(await caller.submit(input=kept)) == 1


BEYOND: tuple[dict[str, Any], ...] = (
    {"priority": -1}, {"priority": 2**31 - 1}, {"max_attempts": 0}, {"max_attempts": 1_001},
    {"delay": "-1 second"}, {"delay": "9000 years"}, {"deadline": "9999-01-01 00:00:00Z"},
    {"deadline": "infinity"},
)  # fmt: skip


async def test_a_run_is_submitted_within_the_limits_or_not_at_all(
    ledger: Ledger, caller: RawCaller, subtests: pytest.Subtests
) -> None:
    for given in BEYOND:
        with subtests.test(f"{given}"):
            assert await refused(caller.submit(**given)) == INVALID
            assert await ledger.runs() == []


async def test_content_that_could_not_be_read_is_not_taken(
    ledger: Ledger, caller: RawCaller
) -> None:
    run = await ledger.submit("parse")
    nul, text = json.dumps({"input": "\x00"}), json.dumps({"text": "a path: c:\\u0000"})

    assert await refused(caller.submit(input=nul)) == NOT_TEXT
    assert await refused(caller.append(run.run_id, "mallory", nul)) == NOT_TEXT
    assert (
        await refused(caller.transition(run.run_id, "cancelled", actor="mallory", body=nul))
        == NOT_TEXT
    )
    assert await caller.append(run.run_id, "mallory", text)

    event = (await ledger.history(run.run_id))[-1]
    assert isinstance(event, NoteAdded)
    assert event.text == "a path: c:\\u0000"


@pytest.mark.parametrize("body", ['{"parent": 5}', '{"parent": "nobody"}'])
async def test_content_of_another_shape_harms_no_worker(
    ledger: Ledger, caller: RawCaller, body: str
) -> None:
    await caller.submit(input=body)

    [lease] = await ledger.claim("w")

    assert (lease.input, lease.parent) == (None, None)
    assert (await ledger.transition(lease, State.COMPLETED)).state == State.COMPLETED
    assert len(await ledger.history(lease.run_id)) == 3


async def test_the_highest_priority_number_that_is_taken_is_claimed(ledger: Ledger) -> None:
    run = await ledger.submit("parse", priority=2**31 - 2)

    [lease] = await ledger.claim("w")

    assert lease.run_id == run.run_id


@pytest.mark.parametrize("park", [True, False])
@pytest.mark.parametrize("actor", [None, "ann"])
async def test_a_lease_never_grants_the_approval_that_it_asked_for(
    ledger: Ledger, caller: RawCaller, actor: str | None, *, park: bool
) -> None:
    content = {"prompt": "Pay?", "other_person": True}
    async with Ledger.open(caller.url, PROJECT) as own:
        lease = await claimed(own)
        await own.transition(lease, State.WAITING_APPROVAL, park=park, content=content)

        held = {"token": lease.token, "worker": lease.worker_id}
        moved = await caller.transition(lease.run_id, "running", actor=actor, **held)
        if not park:
            with pytest.raises(IllegalTransition, match="a person decides"):
                await own.transition(lease, State.RUNNING)

    assert moved == []
    assert (await ledger.get(lease.run_id)).state == State.WAITING_APPROVAL
    await ledger.approve(await ledger.get(lease.run_id), actor="somebody else")


async def test_a_decision_that_names_no_request_decides_nothing(
    ledger: Ledger, caller: RawCaller
) -> None:
    lease = await claimed(ledger)
    asked = await ledger.transition(lease, State.WAITING_APPROVAL, content={"prompt": "Pay?"})

    for type_ in ("approval.granted", "approval.rejected"):
        assert await refused(caller.decide(lease.run_id, None, type=type_)) == INVALID
        for request in (1, asked.version + 1):
            assert (await caller.decide(lease.run_id, request, type=type_))["refused"] == "request"
        shown = await caller.decide(lease.run_id, asked.version, type=type_, shown="0" * 64)
        assert shown["refused"] == "shown"
    for wrong in ("approval.expired", "run.completed", None):
        assert await refused(caller.decide(lease.run_id, asked.version, type=wrong)) == INVALID

    assert (await ledger.get(lease.run_id)).state == State.WAITING_APPROVAL
    assert (await caller.decide(lease.run_id, asked.version))["refused"] is None


async def test_a_transition_decides_no_approval_whatever_it_names(
    ledger: Ledger, caller: RawCaller
) -> None:
    lease = await claimed(ledger)
    asked = await ledger.transition(lease, State.WAITING_APPROVAL, content={"prompt": "Pay?"})

    for state in ("running", "cancelled", "timeout"):
        for expected in (None, asked.version):
            moved = await caller.transition(lease.run_id, state, actor="ann", expected=expected)
            assert moved == []
            with pytest.raises(IllegalTransition, match=r"ledger\.decide"):
                await ledger.transition(lease.run_id, state, actor="ann", expected_version=expected)

    assert (await ledger.get(lease.run_id)).version == asked.version


async def test_an_approval_is_not_decided_from_an_older_snapshot(
    ledger: Ledger, database: str
) -> None:
    lease = await claimed(ledger)
    asked = await ledger.transition(lease, State.WAITING_APPROVAL, content={"prompt": "Pay?"})
    async with with_login(database, "runfold_worker", rights=RIGHTS) as url:
        connection = await asyncpg.connect(driver_url(url))
        async with connection.transaction(isolation="repeatable_read"):
            assert await refused(decided(connection, lease.run_id, asked.version)) == "25001"
        await connection.close()


async def test_invented_tokens_and_operations_leave_room_for_the_refusal_of_a_real_zombie(
    ledger: Ledger, caller: RawCaller
) -> None:
    first, second = await superseded(ledger)
    for number in range(150):
        await caller.refuse(first.run_id, token=1_000 + number, name="transition")
    for number in range(150):
        await caller.refuse(first.run_id, token=first.token, name=f"operation {number}")
    recorded = await refusals(ledger, first)
    assert recorded == [(first.token, f"operation {n}") for n in range(9)] + [
        (first.token, "and more")
    ]

    await ledger.release(second)
    with pytest.raises(LeaseLost):
        await ledger.transition(second, State.COMPLETED)

    assert (await refusals(ledger, first))[-1] == (second.token, "transition")


async def test_a_sweep_in_a_name_that_hides_something_is_refused(caller: RawCaller) -> None:
    for actor in ("", " ann", "ann\x1b[2J", "a" * 201):
        assert await refused(caller.reap(actor)) == INVALID


@pytest.mark.parametrize(
    "call",
    [
        "ledger.heartbeat($1, ARRAY[$2::uuid], ARRAY[$3::int], '{1 min}'{worker})",
        (
            "ledger.requeue($1, 'lease.released', ARRAY[$2::uuid], ARRAY[$3::int], '{0}', NULL,"
            " NULL{worker})"
        ),
        (
            "ledger.append($1, 'w:1', ARRAY[$2::uuid], ARRAY[$3::int], '{step.completed}', '{1}',"
            " '{read}', NULL, NULL, NULL, NULL, NULL, NULL{worker})"
        ),
        (
            "ledger.transition($1, NULL, ARRAY[$2::uuid], ARRAY[$3::int], '{completed}', NULL,"
            " NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL{worker})"
        ),
    ],
)
async def test_a_lease_is_named_by_its_worker_too(
    ledger: Ledger, connection: asyncpg.Connection, call: str
) -> None:
    lease = await claimed(ledger)
    statement = f"SELECT count(*) FROM {call}"

    for nobody in ("", ", NULL", ", '{NULL}'", ", '{}'"):
        with pytest.raises(asyncpg.DataError, match="its run, its token and its worker"):
            await connection.fetchval(
                statement.replace("{worker}", nobody), PROJECT, lease.run_id, lease.token
            )
    for worker, kept in (("w:2", 0), ("w:1", 1)):
        given = statement.replace("{worker}", f", '{{{worker}}}'")
        assert await connection.fetchval(given, PROJECT, lease.run_id, lease.token) == kept
