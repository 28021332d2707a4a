"""The four forms of the fold agree on random histories: inline, rebuilt, compared, in Python."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runfold.ledger import Lease, Ledger
from runfold.ledger.arguments import Target
from runfold.ledger.errors import LedgerError
from runfold.ledger.events import NoteAdded, OpaqueEvent, StepCompleted
from runfold.ledger.months import FIRST_RUN, LAST_RUN
from runfold.ledger.postgres.urls import driver_url
from runfold.ledger.proof.encoding import FIELDS, event_hash
from runfold.ledger.reading.states import drift_of_range
from runfold.projections.algebra.fold import fold
from runfold.projections.state.run_state import COLUMNS
from tests.support.databases import PROJECT

OPERATIONS = [
    "submit", "claim", "claim", "claim_briefly", "beat", "tool", "park_tool", "answer", "ask",
    "park_ask", "ask_two", "lapse", "park_lapse", "approve", "approve_too", "reject",
    "complete", "fail", "time_out", "release", "retry", "cancel", "note", "step", "reap",
    "zombie", "overdue",
]  # fmt: skip

MOVES: dict[str, tuple[str, dict[str, Any]]] = {
    "tool": ("waiting_tool", {"name": "search", "cost_usd_delta": 0.25}),
    "park_tool": ("waiting_tool", {"name": "search", "park": True}),
    "answer": ("running", {"output": {"found": 3}, "step_count_delta": 1}),
    "ask": ("waiting_approval", {"content": {"prompt": "Sure?"}, "wait": 3600}),
    "park_ask": ("waiting_approval", {"park": True, "wait": 0.001, "wait_outcome": "timeout"}),
    "ask_two": (
        "waiting_approval",
        {"park": True, "content": {"prompt": "Sure?", "approvals": 2}, "wait": 3600},
    ),
    "lapse": ("waiting_approval", {"wait": 0.001, "wait_outcome": "lapsed"}),
    "park_lapse": ("waiting_approval", {"park": True, "wait": 0.001, "wait_outcome": "lapsed"}),
    "complete": (
        "completed",
        {"output": {"ok": True}, "output_sha256": "ab" * 32, "cost_usd_delta": 1.5},
    ),
    "fail": ("failed", {"error_code": "E-TEST", "error_detail": {"why": 'é\n"x"'}}),
    "time_out": ("timeout", {}),
}


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    """One event loop for all examples of a test."""
    with asyncio.Runner() as started:
        yield started


@pytest.fixture
def beside(database: str, runner: asyncio.Runner) -> Iterator[asyncpg.Connection[Any]]:
    """A connection for all examples of a test, beside those of the ledger."""
    connection = runner.run(_connected(database))
    yield connection
    runner.run(connection.close())


async def _connected(database: str) -> asyncpg.Connection[Any]:
    return await asyncpg.connect(driver_url(database))


@pytest.fixture
def opened(database: str, runner: asyncio.Runner) -> Iterator[Ledger]:
    """The ledger whose connections all examples of a test use."""
    opening = Ledger.open(database, PROJECT)
    yield runner.run(opening.__aenter__())
    runner.run(opening.__aexit__(None, None, None))


@pytest.mark.slow
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    operations=st.lists(st.sampled_from(OPERATIONS), min_size=5, max_size=60),
    seed=st.integers(0, 2**32),
)
def test_every_form_of_the_fold_gives_the_same_state(
    runner: asyncio.Runner,
    opened: Ledger,
    beside: asyncpg.Connection[Any],
    operations: list[str],
    seed: int,
) -> None:
    chance = random.Random(seed)  # noqa: S311  hypothesis gives the seed
    ledger = Ledger(opened.pool, PROJECT, opened.settings)  # which remembers no other example
    runner.run(_history_folds_alike(ledger, beside, operations, chance))


async def _history_folds_alike(
    ledger: Ledger,
    connection: asyncpg.Connection[Any],
    operations: list[str],
    chance: random.Random,
) -> None:
    for run_id in await _play(ledger, operations, chance):
        await _assert_agreement(connection, run_id)
    async with connection.transaction():
        assert not (await drift_of_range(connection, PROJECT, FIRST_RUN, LAST_RUN))[1]
    await ledger.project.waker.flush()


async def _play(ledger: Ledger, operations: list[str], chance: random.Random) -> list[UUID]:
    runs = [(await ledger.submit("play", {"n": 0}, tags=["a", 'b"c']), None)[0].run_id]
    leases: list[Lease] = []
    for operation in operations:
        # A refused command must leave no trace but write.refused: the comparison shows it.
        with suppress(LedgerError):
            await _do(ledger, operation, runs, leases, chance)
    for run_id in runs:
        opaque = [event for event in await ledger.history(run_id) if isinstance(event, OpaqueEvent)]
        assert not opaque, "the catalogue does not describe what was stored"
    return runs


async def _do(  # noqa: C901, PLR0912  one branch for each operation
    ledger: Ledger, operation: str, runs: list[UUID], leases: list[Lease], chance: random.Random
) -> None:
    run_id = chance.choice(runs)
    lease = leases[-1] if leases else None
    match operation:
        case "submit":
            runs.append(
                (
                    await ledger.submit("play", {"n": len(runs)}, max_attempts=chance.randint(1, 3))
                ).run_id
            )
        case "overdue":
            runs.append(
                (await ledger.submit("play", deadline=0.001, delay=chance.choice([0, 60]))).run_id
            )
        case "claim":
            leases += await ledger.claim("w:1", limit=2)
        case "claim_briefly":
            leases += await ledger.claim("w:2", limit=2, ttl=0.001)
        case "beat":
            await ledger.heartbeat(list({lease.run_id: lease for lease in leases}.values()))
        case "approve":
            await ledger.approve(await ledger.get(run_id), actor="ann", reason="fine")
        case "approve_too":
            await ledger.approve(await ledger.get(run_id), actor="bob")
        case "reject":
            await ledger.reject(await ledger.get(run_id), actor="ann", reason="no")
        case "cancel":
            await ledger.cancel(run_id, reason="enough")
        case "note":
            await ledger.append(run_id, NoteAdded(text="seen"), actor="ann")
        case "reap":
            await ledger.reap()
        case "zombie" if leases:
            await ledger.transition(chance.choice(leases), "completed")
        case "release" if lease:
            await ledger.release(lease)
        case "retry" if lease:
            await ledger.retry(lease, error_code="E-TRY", error_detail="again")
        case "step" if lease:
            await ledger.append(
                lease, StepCompleted(name="read", output=[1, 2], cost_usd="0.5", step_count=1)
            )
        case _ if lease and operation in MOVES:
            state, facts = MOVES[operation]
            targets: list[Target] = [lease, run_id]
            await ledger.transition(chance.choice(targets), state, **facts)


async def _assert_agreement(connection: asyncpg.Connection[Any], run_id: UUID) -> None:
    events = [dict(row) for row in await connection.fetch(
        "SELECT * FROM ledger.event WHERE project_id = $1 AND run_id = $2 ORDER BY version",
        PROJECT, run_id)]  # fmt: skip
    inline = await connection.fetchrow("SELECT * FROM ledger.run_state WHERE run_id = $1", run_id)
    rebuilt = await connection.fetchrow(
        "SELECT * FROM ledger.rebuild_run_state($1, $2, $2)", PROJECT, run_id
    )
    assert inline is not None
    assert rebuilt is not None
    in_python = fold(COLUMNS, events)
    assert _state(inline) == in_python
    assert _state(rebuilt) == in_python

    step_by_step: dict[str, Any] | None = None
    for event in events:
        step_by_step = fold(COLUMNS, [event], step_by_step)
        then = await connection.fetchrow(
            "SELECT * FROM ledger.state_at($1, $2, $3, NULL)", PROJECT, run_id, event["version"]
        )
        assert then is not None
        assert _state(then) == step_by_step
    assert step_by_step == in_python
    _assert_chain(events)


def _assert_chain(events: list[dict[str, Any]]) -> None:
    previous = b""
    for event in events:
        assert event_hash(previous, event) == event["hash"]
        previous = event["hash"]


def _state(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in COLUMNS}


TEXT = st.text(
    st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), min_size=1, max_size=30
)
FACTS = st.fixed_dictionaries(
    {"type": TEXT, "actor": TEXT, "version": st.integers(1, 2**31 - 1)},
    optional={
        "state": TEXT, "name": TEXT, "kind": TEXT, "worker_id": TEXT, "error_code": TEXT,
        "key": TEXT, "priority": st.integers(0, 2**31 - 1), "token": st.integers(1, 2**31 - 1),
        "step_count": st.integers(-9, 9), "lease_until": st.datetimes(timezones=st.timezones()),
        "deadline": st.datetimes(timezones=st.timezones()),
        "cost_usd": st.decimals(-10**6, 10**6, places=6),
        "payload_hash": st.binary(min_size=32, max_size=32), "tags": st.lists(TEXT, max_size=4),
    },
)  # fmt: skip


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(facts=FACTS, previous=st.binary(min_size=0, max_size=32))
@pytest.mark.slow
def test_sql_and_python_hash_an_event_to_the_same_bytes(
    runner: asyncio.Runner,
    beside: asyncpg.Connection[Any],
    facts: dict[str, Any],
    previous: bytes,
) -> None:
    runner.run(_hashes_agree(beside, facts, previous))


async def _hashes_agree(
    connection: asyncpg.Connection[Any], facts: dict[str, Any], previous: bytes
) -> None:
    # Whatever a session sets, the bytes are the same.
    await connection.execute(
        "SET TimeZone = 'Asia/Kathmandu'; SET DateStyle = 'German'; SET extra_float_digits = 0"
    )
    run_id = UUID("01a20a58-e8e0-758f-977f-fa8304d39231")
    recorded = await connection.fetchval("SELECT clock_timestamp()")
    event = {
        "project_id": "p",
        "run_id": run_id,
        "recorded_at": recorded,
        "schema_version": 1,
        **facts,
    }
    names = [name for name, _ in FIELDS if name in event]
    types = {
        "text": "text", "uuid": "uuid", "int": "int", "time": "timestamptz", "list": "text[]",
        "money": "numeric(18,6)", "bytes": "bytea",
    }  # fmt: skip
    how = dict(FIELDS)
    listed = ", ".join(f"{name} => ${i}::{types[how[name]]}" for i, name in enumerate(names, 2))
    in_sql = await connection.fetchval(
        f"SELECT ledger.event_hash(previous => $1, {listed})",
        previous,
        *(event[name] for name in names),
    )
    assert event_hash(previous, event) == in_sql
