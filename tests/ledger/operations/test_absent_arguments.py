"""Each argument of each operation may be absent, and every two: it has a default, or is refused."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import asyncpg
import pytest

from runfold.ledger import Lease, Ledger
from tests.support.runs import claimed
from tests.support.signatures import callable_functions

INVALID = "22023"
RUN, TOKEN, FREE = "ARRAY[{run}::uuid]", "ARRAY[{token}]", "ARRAY[{free}::uuid]"
HOOK = "'wh_0123456789ab'"
CALLS = {
    "submit": (
        "!'test'", "!'ann'", "'{parse}'", "'{null}'", "'{key}'", "'{0}'", "'{1 s}'", "'{3}'",
        "'{2100-01-01Z}'", "NULL", "NULL",
    ),
    "claim": ("!'test'", "'w:1'", "'{parse}'", "1", "'1 min'"),
    "heartbeat": ("!'test'", RUN, TOKEN, "'{1 min}'", "'{w:1}'"),
    "transition": (
        "!'test'", "'{ann}'", RUN, TOKEN, "'{completed}'", "'{f}'", "'{n}'", "'{E-X}'", "'{null}'",
        "'{1}'", "'{1}'", "ARRAY[sha256('')]", "NULL", "NULL", "'{2}'", "'{key}'", "'{w:1}'",
    ),
    "transition of nobody's run": (
        "!'test'", "'{ann}'", FREE, "'{null}'", "'{cancelled}'", "NULL", "NULL", "NULL", "NULL",
        "NULL", "NULL", "NULL", "NULL", "NULL", "'{1}'", "NULL",
    ),
    "requeue": (
        "!'test'", "'lease.released'", RUN, TOKEN, "'{1 s}'", "'{E-X}'", "'{null}'", "'{w:1}'",
    ),
    "cancel": ("!'test'", "!'ann'", RUN, "'{{}}'"),
    "append": (
        "!'test'", "'ann'", RUN, TOKEN, "'{note.added}'", "'{1}'", "'{n}'", "'{E-X}'", "'{null}'",
        "'{1}'", "'{1}'", "'{2}'", "'{key}'", "'{w:1}'",
    ),
    "signal": ("!'test'", "!'ann'", "{run}", "'name'", "'{{}}'", "'{{}}'", "'key'"),
    "refuse": ("!'test'", "'ann'", "'complete'", RUN, TOKEN),
    "reap": ("!'test'", "'reaper'", "10", "true"),
    "parked_runs": ("!'test'",),
    "commands": (
        "!'test'", RUN, "'{completed}'", "'{f}'", "'{n}'", "'{E-X}'", "'{null}'", "'{1}'", "'{1}'",
        "ARRAY[sha256('')]", "'{1 s}'", "'{timeout}'", "'{key}'",
    ),
    "closings": ("!'test'", RUN, TOKEN),
    "change_kind": ("!'test'", "!'ann'", "'parse'", "'kind.paused'", "NULL", "'why'", "true"),
    "change_access": ("!'test'", "!'ann'", "'login'", "'{work}'", "'{ann}'", "now()", "'why'"),
    "change_role": ("!'test'", "!'ann'", "!'role.granted'", "'finance'", "'bob'", "'why'"),
    "change_token": ("!'ann'", "'abc'", "sha256('')", "'name'", "'1 day'", "'why'"),
    "put_schedule": (
        "!'test'", "!'ann'", "'nightly'", "'parse'", "'{{}}'", "'0 3 * * *'", "'UTC'", "now()",
        "now()", "true",
    ),
    "advance_schedule": (
        "!'test'", "'nightly'", "now()", "now()", "!now()", "now()",
    ),
    "change_schedule": ("!'test'", "!'ann'", "'nightly'", "'pause'", "NULL", "'why'"),
    "change_schedule that resumes": (
        "!'test'", "!'ann'", "'nightly'", "'resume'", "now()", "'why'",
    ),
    "drop_schedule": ("!'test'", "!'ann'", "'nightly'"),
    "change_user with a password": (
        "!'ann'", "'bob'", "'add'", "'argon2id t=1 m=64 p=1'", "sha256('')", "sha256('')",
        "NULL", "NULL", "'why'",
    ),
    "change_user of a provider": (
        "!'ann'", "'bob'", "'add'", "NULL", "NULL", "NULL", "'https://id'", "'7'", "'why'",
    ),
    "change_view": ("!'test'", "!'ann'", "'mine'", "'kind:parse'"),
    "snooze": ("!'test'", "!'ann'", "{run}", "1", "now() + interval '1 h'"),
    "change_webhook": (
        "!'test'", "!'ann'", "NULL", "'add'", "'https://a.example/'", "'{a.b}'", "'{parse}'",
        "sha256('')", "false", "'why'",
    ),
    "change_webhook that is there": (
        "!'test'", "!'ann'", HOOK, "'pause'", "NULL", "NULL", "NULL", "NULL", "false", "'why'",
    ),
    "queue_deliveries": (
        "!'test'", HOOK, "'a'", "!'1/1:1:@0//0'", "!" + RUN, "!'{1}'", "!'{a.b}'", "!'{x}'",
    ),
    "forget_deliveries": ("!'test'",),
    "due_deliveries": ("!'test'", HOOK, "1", "'1 min'"),
    "record_attempt": ("!'test'", HOOK, "{run}", "1", "1", "5", "200", "'x'", "'1 min'"),
    "resend_delivery": ("!'test'", "!'ann'", HOOK, "{run}", "1"),
    "decide": (
        "!'test'", "!'ann'", "{run}", "'approval.granted'", "1", "'x'", "'yes'", "'{{}}'", "'key'",
    ),
    "read_run": ("!'test'", "{run}"),
    "note_reads": ("!'test'", "ARRAY[{run}]::uuid[]", "'/runs'"),
    "note_verify": ("!'test'", "!'ann'", "!now()", "!1", "!1", "!0", "!0", "!'{}'"),
    "note_rebuild": ("'run_counts'", "!'begun'", "1", "1", "0", "!'ann'", "!'why'"),
    "forget_aside": ("!'run_counts_v1'", "'test'", "{free}::uuid"),
    "sign_in_by_password": ("'bob'", "sha256('')", "sha256('a')"),
    "sign_in_by_provider": ("'https://id'", "'7'", "sha256('a')"),
    "sign_in_by_token": ("'secret'", "sha256('a')"),
    "use_token": ("'secret'",),
    "end_session": ("'secret'", "'abc'"),
    "begin_work": ("'test'", "true"),
    "end_work": ("1",),
    "make_partitions": ("3",),
}  # fmt: skip
"""A call that is right, by its arguments: `!` before one that must be given. `null` in quotes and
braces is the array's element."""

BAD_TEXTS = (r"E'x\x1by'", r"E'a\u202eb'", "repeat('x', 20001)", "''")
ODD = {
    "numeric": ("'NaN'", "'infinity'", "'-infinity'", "1e9 + 1", "-1e9 - 1", "1e300"),
    "integer": ("'-2147483648'", "'-1'", "2147483647"),
    "bigint": ("'-9223372036854775808'", "'-1'", "9223372036854775807"),
    "interval": (
        "'-1 us'", "'3651 days'", "'178000000 years'", "'-178000000 years'", "'2147483647 days'",
    ),
    "timestamp with time zone": (
        "'infinity'", "'-infinity'", "'4713-01-01 BC'", "'1969-12-31Z'", "'294276-12-31Z'",
    ),
    "bytea": ("''", "decode(repeat('00', 100000), 'hex')"),
}  # fmt: skip
"""Values that a type has and hardly anybody means."""
COMPARED = {
    "transition": "p_workers", "heartbeat": "p_workers", "requeue": "p_workers",
    "append": "p_workers", "signal": "p_answer",
    "commands": "p_whats p_names p_error_codes p_bodies p_wait_outcomes p_keys",
    "advance_schedule": "p_name", "decide": "p_shown",
    "queue_deliveries": "p_webhook p_before p_bodies",
    "due_deliveries": "p_webhook", "record_attempt": "p_webhook p_error",
    "resend_delivery": "p_webhook", "forget_aside": "p_relation p_project_id",
    "sign_in_by_password": "p_name",
    "sign_in_by_provider": "p_issuer p_subject", "sign_in_by_token": "p_secret",
    "use_token": "p_secret", "end_session": "p_secret p_session",
}  # fmt: skip
"""Texts that name what is there, or are compared with it: another one finds nothing. And what is
kept of a webhook, which is shown as any content is."""

_TRY = """
CREATE OR REPLACE FUNCTION pg_temp.try(p_statements text[]) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE
  states text[];
BEGIN
  FOR number IN 1 .. cardinality(p_statements) LOOP
    BEGIN
      EXECUTE p_statements[number];
      RAISE 'undone' USING ERRCODE = 'ZZ000';
    EXCEPTION WHEN OTHERS THEN
      states := states || nullif(SQLSTATE, 'ZZ000');
    END;
  END LOOP;
  RETURN states;
END $$
"""

_CHANGING = """
SELECT DISTINCT p.proname AS name
FROM pg_proc AS p
CROSS JOIN unnest(ARRAY['runfold_worker', 'runfold_reader', 'runfold_projector']) AS r (role)
WHERE p.pronamespace = 'ledger'::regnamespace AND p.provolatile = 'v' AND p.prosecdef
  AND p.pronargs > 0 AND p.prorettype <> 'trigger'::regtype AND p.proname !~ 'projection|^feed_'
  AND has_function_privilege(r.role, p.oid, 'EXECUTE')
"""


@pytest.mark.slow
async def test_an_absent_argument_has_a_default_or_is_refused(
    ledger: Ledger, connection: asyncpg.Connection[Any], subtests: pytest.Subtests
) -> None:
    lease: Lease = await claimed(ledger)
    free = await ledger.submit("parse")
    filled = {"run": f"'{lease.run_id}'", "free": f"'{free.run_id}'", "token": lease.token}
    for call, template in CALLS.items():
        with subtests.test(call):
            arguments = [_filled(one.removeprefix("!"), filled) for one in template]
            is_needed = [one.startswith("!") for one in template]

            name = call.split(maxsplit=1)[0]
            statements, needed = [f"SELECT ledger.{name}({', '.join(arguments)})"], [False]
            for absent in _absences(arguments):
                given = [absent.get(n, one) for n, one in enumerate(arguments)]
                statements.append(f"SELECT ledger.{name}({', '.join(given)})")
                needed.append(
                    any(
                        is_needed[n] and (value == "NULL" or "{" in arguments[n])
                        for n, value in absent.items()
                    )
                )
            states = await _outcomes(connection, statements)
            surprises = [
                (state, statement)
                for number, (state, statement) in enumerate(zip(states, statements, strict=True))
                if not _is_named(state, right=number == 0) or (needed[number] and state is None)
            ]
            assert not surprises, "\n".join(map(str, surprises))


def _absences(arguments: list[str]) -> Iterator[dict[int, str]]:
    """Yield which arguments are absent: each of them, and every two."""
    for place in range(len(arguments)):
        yield {place: "NULL"}
        yield {place: "'{NULL}'"}
    for pair in combinations(range(len(arguments)), 2):
        yield dict.fromkeys(pair, "NULL")


async def test_what_is_left_out_is_what_python_leaves_out(
    ledger: Ledger, connection: asyncpg.Connection[Any]
) -> None:
    made = await connection.fetchval("SELECT run_id FROM ledger.submit('test', 'ann', '{parse}')")
    same = await ledger.submit("parse", actor="ann")
    run = await ledger.get(made)
    assert (run.priority, run.max_attempts, run.input) == (
        same.priority, same.max_attempts, same.input,
    )  # fmt: skip

    [lease] = await ledger.claim("w:1", limit=1)
    note = "ledger.append('test', 'ann', ARRAY[$1::uuid], NULL, '{note.added}')"
    await connection.fetch(f"SELECT FROM {note}", lease.run_id)
    await ledger.heartbeat([lease])
    await ledger.release(lease)
    history = await connection.fetch("SELECT * FROM ledger.history('test', $1)", lease.run_id)
    assert [(row["version"], row["type"]) for row in history] == [
        (event.version, event.type) for event in await ledger.history(lease.run_id)
    ]
    now = "SELECT version FROM ledger.state_at('test', $1)"
    assert await connection.fetchval(now, lease.run_id) == len(history)


async def test_a_text_that_hides_something_or_is_too_long_or_empty_is_refused(
    ledger: Ledger, connection: asyncpg.Connection[Any]
) -> None:
    functions = await callable_functions(connection)
    lease: Lease = await claimed(ledger)
    free = await ledger.submit("parse")
    filled = {"run": f"'{lease.run_id}'", "free": f"'{free.run_id}'", "token": lease.token}

    tried, statements = [], []
    for call, template in CALLS.items():
        name = call.split(maxsplit=1)[0]
        arguments = [_filled(one.removeprefix("!"), filled) for one in template]
        for place, (parameter, type_) in enumerate(functions[name]["parameters"][: len(arguments)]):
            if arguments[place] == "NULL" or "text" not in type_ or parameter == "p_project":
                continue
            for bad in BAD_TEXTS:
                one = f"ARRAY[{bad}]" if type_ == "text[]" else bad
                given = [one if n == place else other for n, other in enumerate(arguments)]
                tried.append((name, parameter))
                statements.append(f"SELECT ledger.{name}({', '.join(given)})")
    states = await _outcomes(connection, statements)
    taken = {
        facts
        for facts, state in zip(tried, states, strict=True)
        if state is None or not _is_named(state, right=False)
    }
    assert taken == {(name, one) for name, those in COMPARED.items() for one in those.split()}


async def test_an_odd_number_time_or_size_is_refused_by_name_or_harmless(
    ledger: Ledger, connection: asyncpg.Connection[Any]
) -> None:
    functions = await callable_functions(connection)
    lease: Lease = await claimed(ledger)
    free = await ledger.submit("parse")
    filled = {"run": f"'{lease.run_id}'", "free": f"'{free.run_id}'", "token": lease.token}

    statements = []
    for call, template in CALLS.items():
        name = call.split(maxsplit=1)[0]
        arguments = [_filled(one.removeprefix("!"), filled) for one in template]
        for place, (_, type_) in enumerate(functions[name]["parameters"][: len(arguments)]):
            for odd in ODD.get(type_.removesuffix("[]"), ()):
                one = f"ARRAY[{odd}]::{type_}" if type_.endswith("[]") else f"{odd}::{type_}"
                given = [one if n == place else other for n, other in enumerate(arguments)]
                statements.append(f"SELECT ledger.{name}({', '.join(given)})")
    states = await _outcomes(connection, statements)
    surprises = [
        (state, statement)
        for state, statement in zip(states, statements, strict=True)
        if state is not None and not _is_named(state, right=False)
    ]
    assert not surprises, "\n".join(map(str, surprises))
    odd_costs = [
        (state, statement)
        for state, statement in zip(states, statements, strict=True)
        if "::numeric" in statement and state != INVALID
    ]
    assert not odd_costs, "\n".join(map(str, odd_costs))


async def test_a_run_is_not_taken_back_without_its_project(
    connection: asyncpg.Connection[Any],
) -> None:
    with pytest.raises(asyncpg.InvalidParameterValueError, match="p_project_id must be given"):
        await connection.execute(
            "SELECT ledger.forget_aside('run_counts_v1', NULL, gen_random_uuid())"
        )


async def test_every_function_that_may_change_something_is_called(
    connection: asyncpg.Connection[Any],
) -> None:
    named = await connection.fetch(_CHANGING)

    assert {call.split(maxsplit=1)[0] for call in CALLS} >= {row["name"] for row in named}


def _filled(argument: str, values: dict[str, Any]) -> str:
    for name, value in values.items():
        argument = argument.replace("{" + name + "}", str(value))
    return argument.replace("{{}}", "{}")


def _is_named(state: str | None, *, right: bool) -> bool:
    if right:
        return state is None
    # 22P02, 22007: '{NULL}' where no array is asked for.
    return state in {None, INVALID, "22P02", "22007"} or str(state).startswith("RF")


async def _outcomes(connection: asyncpg.Connection[Any], statements: list[str]) -> list[str | None]:
    """Return the SQLSTATE of what each statement raises; each is undone in any case."""
    await connection.execute(_TRY)
    return list(await connection.fetchval("SELECT pg_temp.try($1)", statements))
