"""Bad input: a clear error that names the value and the remedy, and nothing half-written."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from runfold.ledger import Lease, Ledger, State, Submit, Transition, users
from runfold.ledger.errors import (
    DatabaseUnavailable,
    InvalidValue,
    LeaseLost,
    LedgerError,
    PayloadTooLarge,
)
from runfold.ledger.events import NoteAdded, StepCompleted
from runfold.ledger.operations.cancel import CANCEL
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.postgres.urls import driver_url
from runfold.ledger.settings import Settings
from tests.support.runs import claimed

Call = Callable[[Ledger, Lease], Awaitable[object]]
NAN, INF = float("nan"), float("inf")
WRITTEN = ("event", "payload", "run_state", "command", "kind", "project")


def nested(levels: int) -> Any:
    """Return lists in lists."""
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def circular() -> Any:
    """Return a list that holds itself."""
    value: list[Any] = []
    value.append(value)
    return value


async def written(ledger: Ledger) -> list[int]:
    """Count the rows of every table."""
    return [await ledger.pool.fetchval(f"SELECT count(*) FROM ledger.{table}") for table in WRITTEN]


SUBMITS: dict[str, tuple[dict[str, Any], str]] = {
    "kind empty": ({"kind": ""}, "kind"),
    "kind too long": ({"kind": "x" * 201}, "kind"),
    "kind with NUL": ({"kind": "a\x00b"}, "NUL"),
    "kind with a line break": ({"kind": "a\nb"}, "control"),
    "kind with a lone surrogate": ({"kind": "\ud800"}, "surrogate"),
    "kind no text": ({"kind": 7}, "kind"),
    "priority negative": ({"priority": -1}, "priority"),
    "priority too large": ({"priority": 2**31}, "priority"),
    "priority fraction": ({"priority": 1.5}, "priority"),
    "priority bool": ({"priority": True}, "priority"),
    "priority text": ({"priority": "1"}, "priority"),
    "delay negative": ({"delay": -0.001}, "delay"),
    "delay negative timedelta": ({"delay": timedelta(seconds=-1)}, "delay"),
    "delay NaN": ({"delay": NAN}, "delay"),
    "delay infinite": ({"delay": INF}, "delay"),
    "delay too long": ({"delay": 1e300}, "delay"),
    "delay text": ({"delay": "5"}, "delay"),
    "deadline negative": ({"deadline": -1}, "deadline"),
    "deadline without a zone": ({"deadline": datetime(2031, 1, 1)}, "time zone"),  # noqa: DTZ001
    "deadline at once": ({"deadline": 0}, "more than 0"),
    "deadline in the past": ({"deadline": datetime(2020, 1, 1, tzinfo=UTC)}, "is in the past"),
    "deadline NaN": ({"deadline": NAN}, "deadline"),
    "deadline text": ({"deadline": "tomorrow"}, "deadline"),
    "no attempts": ({"max_attempts": 0}, "max_attempts"),
    "too many attempts": ({"max_attempts": 1_001}, "max_attempts"),
    "key empty": ({"key": ""}, "key"),
    "key too long": ({"key": "k" * 201}, "key"),
    "key with NUL": ({"key": "\x00"}, "NUL"),
    "tags one text": ({"tags": "abc"}, "tags"),
    "tags a set": ({"tags": {"a"}}, "tags"),
    "tags with an empty one": ({"tags": [""]}, "tag"),
    "tags with NUL": ({"tags": ["a\x00"]}, "NUL"),
    "tags with a number": ({"tags": [1]}, "tag"),
    "tags too many": ({"tags": ["t"] * 51}, "tags"),
    "input a set": ({"input": {1, 2}}, "input"),
    "input bytes": ({"input": b"x"}, "bytes"),
    "input an object": ({"input": {"x": object()}}, "object"),
    "input a date": ({"input": [datetime(2031, 1, 1)]}, "datetime"),  # noqa: DTZ001
    "input a decimal": ({"input": Decimal(1)}, "Decimal"),
    "input NaN": ({"input": {"a": [NAN]}}, "NaN"),
    "input infinite": ({"input": -INF}, "infinity"),
    "input with NUL": ({"input": {"a": "x\x00"}}, "NUL"),
    "input with NUL in a name": ({"input": {"x\x00": 1}}, "NUL"),
    "input with a lone surrogate": ({"input": ["\udfff"]}, "surrogate"),
    "input with a name that is no text": ({"input": {1: 2}}, "text keys"),
    "input deep": ({"input": nested(33)}, "nested deeper"),
    "input very deep": ({"input": nested(5_000)}, "nested deeper"),
    "input circular": ({"input": circular()}, "nested deeper"),
    "input with a number of too many digits": ({"input": 10**5_000}, "input"),
}


async def outcome(call: Awaitable[object], named: str) -> str:
    """Return what a call came to: "refused" for a short InvalidValue that names what is wrong."""
    try:
        await call
    except InvalidValue as error:
        said = str(error)
        return (
            "refused"
            if re.search(named, said) and len(said) < 500
            else f"refused, but said {said[:200]!r}"
        )
    except Exception as error:
        return f"raised {type(error).__name__}: {str(error)[:200]}"
    return "accepted"


async def test_a_submit_that_makes_no_sense_names_what_is_wrong_and_writes_nothing(
    ledger: Ledger,
) -> None:
    outcomes = {}

    for case, (wrong, named) in SUBMITS.items():
        given: dict[str, Any] = {"kind": "fresh", "key": "k"} | wrong
        outcomes[case] = await outcome(ledger.submit(**given), named)
        outcomes[f"{case}, among others"] = await outcome(
            ledger.submit_many([Submit(kind="fresh"), given]), named
        )

    assert {case: said for case, said in outcomes.items() if said != "refused"} == {}
    assert await written(ledger) == [0, 0, 0, 0, 0, 1]


async def test_a_payload_up_to_the_limit_is_taken_and_one_byte_more_is_not(ledger: Ledger) -> None:
    limit = ledger.settings.payload_limit_bytes
    fits = "ü" * ((limit - len('{"input":""}')) // 2)
    lease = await claimed(ledger)
    before = await written(ledger)

    for call in (
        ledger.submit("parse", fits + "x"),
        ledger.transition(lease, State.COMPLETED, output=fits + "x"),
        ledger.transition(lease, State.FAILED, error_detail={"d": fits}),
    ):
        with pytest.raises(PayloadTooLarge, match="65,536") as caught:
            await call
        assert caught.value.limit_bytes == limit < caught.value.size_bytes
        assert "RUNFOLD_PAYLOAD_LIMIT_BYTES" in str(caught.value)
    assert await written(ledger) == before

    assert (await ledger.submit("parse", fits)).input == fits


async def test_depth_is_taken_up_to_the_limit(ledger: Ledger) -> None:
    run = await ledger.submit("parse", nested(32))

    assert run.input == nested(32)


CALLS: dict[str, tuple[Call, str]] = {
    "state unknown": (lambda g, lease: g.transition(lease, "done"), "pending, running"),
    "state empty": (lambda g, lease: g.transition(lease, ""), "must be one of"),
    "state None": (lambda g, lease: g.transition(lease, None), "must be one of"),  # type: ignore[arg-type]
    "state in capitals": (lambda g, lease: g.transition(lease, "COMPLETED"), "COMPLETED"),
    "park where nothing waits": (
        lambda g, lease: g.transition(lease, "completed", park=True),
        "park",
    ),
    "wait for a tool": (lambda g, lease: g.transition(lease, "waiting_tool", wait=5), "wait"),
    "wait zero": (lambda g, lease: g.transition(lease, "waiting_approval", wait=0), "wait"),
    "wait NaN": (lambda g, lease: g.transition(lease, "waiting_approval", wait=NAN), "wait"),
    "wait outcome": (
        lambda g, lease: g.transition(lease, "waiting_approval", wait=1, wait_outcome="failed"),
        "cancelled, timeout or lapsed",
    ),
    "content unknown": (
        lambda g, lease: g.transition(lease, "waiting_tool", content={"x": 1}),
        "input",
    ),
    "content of an end": (
        lambda g, lease: g.transition(lease, "completed", content={"input": 1}),
        "content",
    ),
    "prompt no text": (
        lambda g, lease: g.transition(lease, "waiting_approval", content={"prompt": 5}),
        "prompt",
    ),
    "cost NaN": (
        lambda g, lease: g.transition(lease, "completed", cost_usd_delta=NAN),
        "cost_usd_delta",
    ),
    "cost infinite": (
        lambda g, lease: g.transition(lease, "completed", cost_usd_delta=INF),
        "cost_usd_delta",
    ),
    "cost minus infinite": (
        lambda g, lease: g.transition(lease, "completed", cost_usd_delta=-INF),
        "cost_usd_delta",
    ),
    "cost decimal NaN": (
        lambda g, lease: g.transition(lease, "completed", cost_usd_delta=Decimal("NaN")),
        "finite",
    ),
    "cost signalling NaN": (
        lambda g, lease: g.transition(lease, "completed", cost_usd_delta=Decimal("sNaN")),
        "finite",
    ),
    "cost too large": (
        lambda g, lease: g.transition(lease, "completed", cost_usd_delta=10**12),
        "cost_usd_delta",
    ),
    "cost absurd": (
        lambda g, lease: g.transition(lease, "completed", cost_usd_delta=Decimal("1e400")),
        "cost",
    ),
    "cost text": (
        lambda g, lease: g.transition(lease, "completed", cost_usd_delta="1"),  # type: ignore[arg-type]
        "cost_usd_delta",
    ),
    "cost bool": (
        lambda g, lease: g.transition(lease, "completed", cost_usd_delta=True),
        "cost_usd_delta",
    ),
    "cost below zero": (
        lambda g, lease: g.transition(lease, "completed", cost_usd_delta=-0.01),
        "below zero",
    ),
    "steps below zero": (
        lambda g, lease: g.transition(lease, "completed", step_count_delta=-1),
        "below zero",
    ),
    "steps too many": (
        lambda g, lease: g.transition(lease, "completed", step_count_delta=2**31),
        "step_count",
    ),
    "steps fraction": (
        lambda g, lease: g.transition(lease, "completed", step_count_delta=0.5),  # type: ignore[arg-type]
        "step_count",
    ),
    "steps NaN": (
        lambda g, lease: g.transition(lease, "completed", step_count_delta=NAN),  # type: ignore[arg-type]
        "step_count",
    ),
    "digest too short": (
        lambda g, lease: g.transition(lease, "completed", output_sha256="ab"),
        "64 hex",
    ),
    "digest no hex": (
        lambda g, lease: g.transition(lease, "completed", output_sha256="z" * 64),
        "64 hex",
    ),
    "output NaN": (lambda g, lease: g.transition(lease, "completed", output=[NAN]), "NaN"),
    "output NUL": (lambda g, lease: g.transition(lease, "completed", output="\x00"), "NUL"),
    "reason NUL": (lambda g, lease: g.transition(lease, "completed", reason="\x00"), "NUL"),
    "error code empty": (
        lambda g, lease: g.transition(lease, "failed", error_code=""),
        "error_code",
    ),
    "error code NUL": (lambda g, lease: g.transition(lease, "failed", error_code="E\x00"), "NUL"),
    "error detail deep": (
        lambda g, lease: g.transition(lease, "failed", error_detail=nested(40)),
        "nested",
    ),
    "name too long": (lambda g, lease: g.transition(lease, "waiting_tool", name="n" * 201), "name"),
    "key of a transition empty": (lambda g, lease: g.transition(lease, "completed", key=""), "key"),
    "actor empty": (lambda g, lease: g.transition(lease, "completed", actor=""), "actor"),
    "expected version no number": (
        lambda g, lease: g.transition(lease, "completed", expected_version="x"),  # type: ignore[arg-type]
        "version",
    ),
    "expected version too large": (
        lambda g, lease: g.transition(lease, "completed", expected_version=2**40),
        "version",
    ),
    "token too large": (
        lambda g, lease: g.transition(replace(lease, token=2**31), "completed"),
        "token",
    ),
    "beat of a token too large": (
        lambda g, lease: g.heartbeat([replace(lease, token=2**63)]),
        "token",
    ),
    "run id malformed": (lambda g, _: g.get("not-a-uuid"), "is not a UUID"),
    "run id empty": (lambda g, _: g.get(""), "is not a UUID"),
    "run id with NUL": (lambda g, _: g.get("\x00"), "is not a UUID"),
    "run id of version 4": (lambda g, _: g.get(uuid4()), "UUIDv7"),
    "run id nil": (lambda g, _: g.history(UUID(int=0)), "UUIDv7"),
    "run id number": (lambda g, _: g.get(7), "run id"),  # type: ignore[arg-type]
    "run id None": (lambda g, _: g.transition(None, "cancelled"), "run id"),  # type: ignore[arg-type]
    "run id of version 4 cancelled": (lambda g, _: g.cancel(uuid4()), "UUIDv7"),
    "run id of version 4 verified": (lambda g, _: g.verify(str(uuid4())), "UUIDv7"),
    "run id of version 4 noted": (lambda g, _: g.append(uuid4(), NoteAdded(text="x")), "UUIDv7"),
    "page before what is no run": (lambda g, _: g.runs(before="x"), "run id"),
    "worker empty": (lambda g, _: g.claim(""), "worker_id"),
    "worker with NUL": (lambda g, _: g.claim("w\x00"), "NUL"),
    "worker too long": (lambda g, _: g.claim("w" * 201), "worker_id"),
    "claim of none": (lambda g, _: g.claim("w", limit=0), "limit"),
    "claim of too many": (lambda g, _: g.claim("w", limit=10_001), "limit"),
    "claim limit bool": (lambda g, _: g.claim("w", limit=True), "limit"),
    "claim kinds one text": (lambda g, _: g.claim("w", kinds="parse"), "kinds"),
    "claim kind empty": (lambda g, _: g.claim("w", kinds=[""]), "kind"),
    "claim kind NUL": (lambda g, _: g.claim("w", kinds=["a\x00"]), "NUL"),
    "ttl zero": (lambda g, _: g.claim("w", ttl=0), "ttl"),
    "ttl negative": (lambda g, _: g.claim("w", ttl=-1), "ttl"),
    "ttl NaN": (lambda g, _: g.claim("w", ttl=NAN), "ttl"),
    "ttl infinite": (lambda g, _: g.claim("w", ttl=INF), "ttl"),
    "list state unknown": (lambda g, _: g.runs(state="done"), "must be one of"),
    "list states unknown": (lambda g, _: g.runs(state=["running", "x"]), "must be one of"),
    "list limit": (lambda g, _: g.runs(limit=0), "limit"),
    "list worker NUL": (lambda g, _: g.runs(worker_id="w\x00"), "NUL"),
    "list tag NUL": (lambda g, _: g.runs(tag="t\x00"), "NUL"),
    "list key NUL": (lambda g, _: g.runs(key="k\x00"), "NUL"),
    "history after too large": (lambda g, lease: g.history(lease.run_id, after=2**40), "after"),
    "step cost": (
        lambda g, lease: g.append(lease, StepCompleted(name="s", cost_usd=Decimal(10**10))),
        "cost_usd",
    ),
    "step name empty": (lambda g, lease: g.append(lease, StepCompleted(name="")), "name"),
    "step name NUL": (lambda g, lease: g.append(lease, StepCompleted(name="a\x00")), "NUL"),
    "note deep": (
        lambda g, lease: g.append(lease, StepCompleted(name="s", output=nested(40))),
        "nested",
    ),
    "append expected version": (
        lambda g, lease: g.append(lease, NoteAdded(text="x"), expected_version=2**40),
        "version",
    ),
    "content no mapping": (
        lambda g, lease: g.transition(lease, "waiting_tool", content=5),  # type: ignore[arg-type]
        "content",
    ),
    "role no text": (
        lambda g, lease: g.transition(lease, "waiting_approval", content={"role": 5}),
        "role",
    ),
    "role empty": (
        lambda g, lease: g.transition(lease, "waiting_approval", content={"role": ""}),
        "role",
    ),
    "other person a number": (
        lambda g, lease: g.transition(lease, "waiting_approval", content={"other_person": 1}),
        "True",
    ),
    "based on text": (
        lambda g, lease: g.transition(lease, "waiting_approval", content={"based_on": "3"}),
        "based_on",
    ),
    "wait outcome a list": (
        lambda g, lease: g.transition(lease, "waiting_approval", wait=1, wait_outcome=[]),  # type: ignore[arg-type]
        "cancelled",
    ),
    "event no event": (lambda g, lease: g.append(lease, 5), "must be an event"),  # type: ignore[arg-type]
    "release by an id": (lambda g, lease: g.release(lease.run_id), "lease"),  # type: ignore[arg-type]
    "retry by an id": (lambda g, lease: g.retry(lease.run_id), "lease"),  # type: ignore[arg-type]
    "beat of a bare lease": (lambda g, lease: g.heartbeat(lease), r"heartbeat\(\[lease\]\)"),  # type: ignore[arg-type]
    "moves of a bare lease": (lambda g, lease: g.transition_many(lease), r"\[Transition\("),  # type: ignore[arg-type]
    "submits of one mapping": (lambda g, _: g.submit_many({"kind": "a"}), r"\[Submit\("),  # type: ignore[dict-item]
    "submits of a kind": (lambda g, _: g.submit_many(["a"]), "must be a Submit or the mapping"),  # type: ignore[list-item]
    "beat of an id": (lambda g, lease: g.heartbeat([lease.run_id]), "lease"),  # type: ignore[list-item]
    "claim kinds a number": (lambda g, _: g.claim("w", kinds=5), "kinds"),  # type: ignore[arg-type]
    "list state a number": (lambda g, _: g.runs(state=5), "state"),  # type: ignore[arg-type]
    "list at text": (lambda g, _: g.runs(at="noon"), "must be a datetime"),  # type: ignore[arg-type]
    "state at text": (lambda g, lease: g.state_at(lease.run_id, "noon"), "aware datetime"),  # type: ignore[arg-type]
    "connection a number": (lambda g, _: g.submit("k", connection=5), "connection"),  # type: ignore[arg-type]
    "actor with a blank": (lambda g, lease: g.cancel(lease.run_id, actor="ann "), "blank"),
    "grant without a zone": (
        lambda g, _: g.grant_access("bob", ["read"], until=datetime(2031, 1, 1)),  # noqa: DTZ001
        "time zone",
    ),
    "schedule never due": (
        lambda g, _: g.schedule("s", "k", cron="0 0 */30 2 1#2"),
        "is never due",
    ),
    "lease of two days": (lambda g, _: g.claim("w", ttl=172_800), "at most a day"),
    "user with two proofs": (
        lambda g, _: users.add(g.project, "ann", password="x" * 20, provider=("i", "s")),
        "not both",
    ),
    "user with none": (lambda g, _: users.add(g.project, "ann"), "not both"),
    "user in capitals": (
        lambda g, _: users.add(g.project, "Ann", provider=("https://id", "7")),
        "begin with a letter or digit",
    ),
    "cancel reason NUL": (lambda g, lease: g.cancel(lease.run_id, reason="\x00"), "NUL"),
}


async def test_a_call_that_makes_no_sense_names_what_is_wrong_and_writes_nothing(
    ledger: Ledger,
) -> None:
    outcomes = {}

    for case, (call, named) in CALLS.items():
        lease = await claimed(ledger)
        before = await written(ledger)
        outcomes[case] = await outcome(call(ledger, lease), named)
        if await written(ledger) != before:
            outcomes[case] += ", and something was written"

    assert {case: said for case, said in outcomes.items() if said != "refused"} == {}


async def test_an_expired_or_forged_token_is_refused_with_what_holds_now(ledger: Ledger) -> None:
    lease = await claimed(ledger)

    with pytest.raises(LeaseLost, match="held by w:1 under token 2") as caught:
        await ledger.transition(replace(lease, token=99), State.COMPLETED)

    assert (caught.value.token, caught.value.current_token) == (99, 2)


async def test_a_batch_with_one_senseless_command_writes_none_of_it(ledger: Ledger) -> None:
    lease, other = await claimed(ledger), await claimed(ledger)
    before = await written(ledger)

    with pytest.raises(InvalidValue, match="cost_usd_delta"):
        await ledger.transition_many(
            [
                Transition(lease, State.COMPLETED),
                Transition(other, State.COMPLETED, cost_usd_delta=NAN),
            ]
        )

    assert await written(ledger) == before


def test_every_error_is_a_ledger_error() -> None:
    import runfold.ledger.errors as module

    own = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and value.__module__ == module.__name__
    ]

    assert own
    assert all(issubclass(error, LedgerError) for error in own)


async def test_what_is_no_command_no_reason_and_no_duration_is_named(ledger: Ledger) -> None:
    lease = await claimed(ledger)

    mistakes: list[Any] = [{"kind": "k", "bogus": 1}, 5, {}]
    for mistake in mistakes:
        with pytest.raises(InvalidValue, match="command"):
            await ledger.submit_many([mistake])
    with pytest.raises(InvalidValue, match="reason"):
        await ledger.transition(lease, "cancelled", reason=5)  # type: ignore[arg-type]
    with pytest.raises(InvalidValue, match="reason"):
        await ledger.cancel(lease.run_id, reason={"why": 1})  # type: ignore[arg-type]  # what is tested
    for delay in (10**400, float("nan"), float("inf"), -1):
        with pytest.raises(InvalidValue, match="delay"):
            await ledger.submit("parse", delay=delay)


async def test_an_empty_home_is_no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNFOLD_HOME", "")

    assert Settings.load().home is None


async def test_a_lease_made_up_by_hand_changes_neither_the_holder_nor_anything_by_bad_values(
    ledger: Ledger,
) -> None:
    lease = await claimed(ledger, "w:1")

    forged = replace(lease, worker_id="w:forged")
    with pytest.raises(LeaseLost, match="held by w:1"):
        await ledger.append(forged, StepCompleted(name="s"))
    receipt = await ledger.append(lease, StepCompleted(name="s"))
    assert (await ledger.history(lease.run_id))[-1].actor == "w:1"
    assert receipt.version == 4  # after the refusal
    [beaten] = await ledger.heartbeat([replace(lease, run_id=str(lease.run_id))])  # type: ignore[arg-type]  # as from JSON
    assert not beaten.lost
    for bad in (
        {"worker_id": "a\nb"},
        {"worker_id": ""},
        {"token": "2"},
        {"token": 2**40},
        {"run_id": "x"},
    ):
        with pytest.raises(InvalidValue):
            await ledger.release(replace(lease, **bad))
    for digest in (32, [0] * 32, "zz", b"short"):
        with pytest.raises(InvalidValue, match="output_sha256"):
            await ledger.transition(lease, "completed", output_sha256=digest)  # type: ignore[arg-type]
    with pytest.raises(LeaseLost):
        await ledger.release(forged)
    run = await ledger.release(lease)
    assert (run.state, (await ledger.history(lease.run_id))[-1].actor) == ("pending", "w:1")


async def test_a_statement_that_waits_longer_for_a_lock_than_its_role_may_can_be_made_again(
    database: str, ledger: Ledger, connection: asyncpg.Connection
) -> None:
    lease = await claimed(ledger)
    async with connection.transaction():
        await connection.execute(
            "SELECT FROM ledger.run_state WHERE run_id = $1 FOR UPDATE", lease.run_id
        )
        impatient = await asyncpg.connect(
            driver_url(database), server_settings={"lock_timeout": "50ms"}
        )
        with pytest.raises(DatabaseUnavailable, match="nothing was written"):
            await fetch(impatient, CANCEL, ledger.project_id, "ann", [lease.run_id], None)
        await impatient.close()
    assert (await ledger.transition(lease, "completed")).state == "completed"
