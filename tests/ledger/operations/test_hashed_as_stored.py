"""Where a column changes or cuts what it is given, the hash is that of what is stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from string import ascii_lowercase
from typing import NamedTuple

import asyncpg

from runfold import Ledger, Submit, Transition
from runfold.ledger.postgres.clock import ledger_now
from runfold.ledger.reading.verify import verify
from tests.support.databases import PROJECT
from tests.support.runs import TINY
from tests.support.signatures import callable_functions
from tests.support.waiting import passed


class Call(NamedTuple):
    """A call of a function that appends an event, by what differs from null."""

    function: str
    arguments: Mapping[str, str]


LEASED = {"p_runs": "{run}", "p_tokens": "{token}"}
CALLS = (
    Call("submit", {
        "p_actor": "ann", "p_kinds": "parse", "p_keys": "key-{n}", "p_priorities": "0",
        "p_max_attempts": "3",
    }),
    Call("claim", {"p_worker": "w:2", "p_limit": "1", "p_ttl": "1 hour"}),
    Call("heartbeat", {**LEASED, "p_ttls": "1 hour", "p_workers": "w:1"}),
    Call("append", {
        **LEASED, "p_types": "step.failed", "p_schema_versions": "1", "p_names": "load",
        "p_error_codes": "E-1", "p_costs": "0.25", "p_steps": "1", "p_workers": "w:1",
    }),
    Call("append", {
        "p_actor": "ann", "p_runs": "{run}", "p_types": f"acme.{'x' * 75}",
        "p_schema_versions": "1", "p_keys": "key-{n}",
    }),
    Call("transition", {
        **LEASED, "p_states": "waiting_tool", "p_names": "wc", "p_actors": "ann",
        "p_workers": "w:1",
    }),
    Call("transition", {
        **LEASED, "p_states": "failed", "p_error_codes": "E-1", "p_costs": "0.25",
        "p_keys": "key-{n}", "p_workers": "w:1",
    }),
    Call("decide", {
        "p_actor": "ann", "p_run": "{run}", "p_type": "approval.granted", "p_request": "3",
        "p_meaning": "reviewed", "p_key": "key-{n}",
    }),
    Call("requeue", {
        **LEASED, "p_type": "run.retried", "p_delays": "0", "p_error_codes": "E-1",
        "p_workers": "w:1",
    }),
    Call("cancel", {"p_actor": "ann", "p_runs": "{run}"}),
    Call("refuse", {**LEASED, "p_actor": "ann", "p_name": "heartbeat"}),
    Call("reap", {"p_actor": "ann", "p_limit": "1"}),
)  # fmt: skip
TEXTS = ("x" * 200, "x" * 201, "x" * 200 + " ", "x" + "ü" * 199 + "   ", "x ", " x", "")
"""Each call has a letter of its own for the first x, or its keys would name another's events."""
NUMBERS = (
    "0.0000004", "0.0000005", "1.23456789", "0.1", "0.100000000", "1e2", "100", "-0.0000001",
    "999999.9999999", "1e300", "NaN", "Infinity",
)  # fmt: skip
_APPENDING = """
SELECT proname::text AS name FROM pg_proc
WHERE pronamespace = 'ledger'::regnamespace AND prosrc ~ 'INSERT INTO ledger\\.event\\M'
"""
EVENTS = "SELECT count(*) FROM ledger.event"
REFUSALS = {"22", "23", "RF"}
_REACHED = {
    "character varying": "SELECT max(length({0}))::text = substring('{1}' FROM '[0-9]+') "
    "FROM ledger.event",
    "numeric": "SELECT bool_or({0} = 1.234568) FROM ledger.event",
}
_LIMITED = """
SELECT attname::text AS name, format_type(atttypid, atttypmod) AS type FROM pg_attribute
WHERE attrelid = 'ledger.event'::regclass AND attnum > 0 AND atttypmod <> -1
"""


def hostile(call: Call, letter: str, parameters: Mapping[str, str]) -> Iterator[Mapping[str, str]]:
    """Generate the call's arguments with, in turn, each parameter that a column may change."""
    yield call.arguments
    for name, type_ in parameters.items():
        match type_.removesuffix("[]"):
            case "text":
                values = [text.replace("x", letter, 1) for text in TEXTS]
            case "numeric":
                values = list(NUMBERS)
            case _:
                continue
        yield from ({**call.arguments, name: value} for value in values)


async def run_raw(
    connection: asyncpg.Connection,
    call: Call,
    parameters: Mapping[str, str],
    given: Mapping[str, str],
) -> bool:
    """Call a function as another language would; return whether it was taken."""
    words, values = [], []
    for name, type_ in parameters.items():
        if name in given:
            values.append(given[name])
            place = f"${len(values)}::text"
            place = f"ARRAY[{place}]" if type_.endswith("[]") else place
            words.append(f"{name} => {place}::{type_}")
        else:
            words.append(f"{name} => NULL")
    try:
        await connection.fetch(f"SELECT ledger.{call.function}({', '.join(words)})", *values)
    except asyncpg.PostgresError as error:
        if (error.sqlstate or "")[:2] not in REFUSALS:
            raise
        return False
    return True


async def prepared(ledger: Ledger, call: Call, kind: str, count: int) -> list[dict[str, str]]:
    """Have runs of a kind that the call fits; return what its arguments name of each."""
    deadline = TINY if call.function == "reap" else None
    await ledger.submit_many([Submit(kind=kind, deadline=deadline)] * count)
    if call.function == "reap":
        await passed(ledger, await ledger_now(ledger.pool) + timedelta(seconds=TINY))
    if call.function in {"claim", "reap"}:
        return [{}] * count
    leases = await ledger.claim("w:1", kinds=[kind], limit=count, ttl=3_600)
    if call.function == "decide":
        await ledger.transition_many(
            [Transition(lease, "waiting_approval", park=True) for lease in leases]
        )
    if call.function == "refuse":
        for lease in leases:
            await ledger.release(lease)
    return [
        {"run": str(lease.run_id), "token": str(lease.token), "n": f"{kind}-{number}"}
        for number, lease in enumerate(leases)
    ]


async def test_every_function_that_appends_is_called(connection: asyncpg.Connection) -> None:
    appending = {row["name"] for row in await connection.fetch(_APPENDING)}

    assert {call.function for call in CALLS} == appending


OF_OTHER_LENGTH = {"credential", "role", "shown_sha256", "meaning"}
"""Taken from a login, or from content that is refused where it is longer than the column."""


async def test_the_hash_is_of_what_each_limited_column_stores(
    ledger: Ledger, connection: asyncpg.Connection
) -> None:
    functions = await callable_functions(connection)
    taken = 0
    for letter, call in zip(ascii_lowercase, CALLS, strict=False):
        parameters = dict(functions[call.function]["parameters"])
        calls = list(hostile(call, letter, parameters))
        prepared_runs = await prepared(ledger, call, f"kind-{letter}", len(calls))
        before = await connection.fetchval(EVENTS)
        for number, (arguments, facts) in enumerate(zip(calls, prepared_runs, strict=True)):
            given = {"p_project": PROJECT} | {
                name: value.format(**facts) if "{" in value else value
                for name, value in arguments.items()
            }
            taken += await run_raw(connection, call, parameters, given)
            assert number or await connection.fetchval(EVENTS) > before, (
                f"{call.function} appends nothing in a proper call"
            )

    assert (await verify(ledger.pool, PROJECT)).findings == ()
    assert taken > len(CALLS)
    columns = await connection.fetch(_LIMITED)
    assert {row["name"] for row in columns} >= {"type", "actor", "worker_id", "cost_usd", "key"}
    for name, type_ in columns:
        if name in OF_OTHER_LENGTH:
            continue
        assert await connection.fetchval(_REACHED[type_.split("(")[0]].format(name, type_)), (
            f"no call has brought {name} to the limit of {type_}"
        )
