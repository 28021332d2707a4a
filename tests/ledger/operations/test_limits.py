"""What one call may ask for: a login that calls by hand meets the limits that Python keeps."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import uuid4

import asyncpg
import pytest

from runfold.ledger import Ledger, State
from runfold.ledger.errors import InvalidValue
from runfold.ledger.events import NoteAdded
from runfold.ledger.postgres.urls import driver_url
from tests.support.databases import PROJECT
from tests.support.logins import with_login

INVALID: Final = "22023"
MANY: Final = (
    (
        "submit",
        (
            "submit($1, 'm', array_fill('k'::text, '{10001}'), NULL, NULL,"
            " array_fill(0, '{10001}'), NULL, array_fill(1, '{10001}'), NULL, NULL, NULL)"
        ),
    ),
    (
        "append",
        (
            "append($1, 'm', {runs}, NULL, array_fill('note.added'::text, '{10001}'), {ones},"
            " NULL, NULL, NULL, NULL, NULL, NULL, NULL)"
        ),
    ),
    (
        "transition",
        (
            "transition($1, array_fill('m'::text, '{10001}'), {runs}, NULL,"
            " array_fill('cancelled'::text, '{10001}')" + ", NULL" * 11 + ")"
        ),
    ),
    ("requeue", "requeue($1, 'lease.released', {runs}, {ones}, NULL, NULL, NULL, {workers})"),
    ("refuse", "refuse($1, 'm', 'x', {runs}, {ones})"),
    ("heartbeat", "heartbeat($1, {runs}, {ones}, '{1 min}', {workers})"),
    ("cancel", "cancel($1, 'm', {runs}, NULL)"),
    ("closings", "closings($1, {runs}, {ones})"),
    (
        "commands",
        (
            "commands($1, {runs}, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,"
            " array_fill('key'::text, '{10001}'))"
        ),
    ),
    ("commands, keys alone", "commands($1" + ", NULL" * 11 + ", array_fill('k'::text, '{10001}'))"),
)


@pytest.fixture
async def worker(database: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A worker's login that calls the functions by hand, in anybody's name."""
    rights = ("submit", "work", "read", "decide", "schedule")
    async with with_login(database, "runfold_worker", rights=rights) as url:
        opened = await asyncpg.connect(driver_url(url))
        yield opened
        await opened.close()


async def refused(worker: asyncpg.Connection[Any], statement: str, *arguments: Any) -> str:
    """Return the message with which a call was refused as a caller's mistake."""
    with pytest.raises(asyncpg.PostgresError) as error:
        await worker.fetch(statement, *arguments)
    assert error.value.sqlstate == INVALID, error.value
    return str(error.value)


async def test_no_function_takes_more_than_ten_thousand_commands(
    worker: asyncpg.Connection[Any], subtests: pytest.Subtests
) -> None:
    arrays = {
        "{runs}": f"array_fill('{uuid4()}'::uuid, '{{10001}}')",
        "{ones}": "array_fill(1, '{10001}')",
        "{workers}": "array_fill('m'::text, '{10001}')",
    }
    for name, call in MANY:
        with subtests.test(name):
            for word, array in arrays.items():
                call = call.replace(word, array)  # noqa: PLW2901  one call after the other
            said = await refused(worker, f"SELECT * FROM ledger.{call}", PROJECT)
            assert "10001 commands in one call" in said


async def test_what_is_out_of_its_limits_is_named(
    worker: asyncpg.Connection[Any], subtests: pytest.Subtests
) -> None:
    run = "ARRAY[gen_random_uuid()]"
    requeue = f"requeue($1, 'run.retried', {run}, '{{1}}', %s, NULL, NULL, '{{m}}')"
    submit = "submit($1, 'm', '{a}', NULL, %s, '{0}', NULL, '{1}', NULL, NULL, %s)"
    wait = (
        f"transition($1, '{{m}}', {run}, NULL, %s, NULL, NULL, NULL, NULL, NULL, NULL, %s, NULL,"
        " NULL, NULL)"
    )
    for call, why in (
        (requeue % "'{9000 years}'", "at most ten years"),
        (requeue % "'{-1 s}'", "at most ten years"),
        (wait % ("'{waiting_approval}', NULL", "'{0}'"), "within ten years, and not at once"),
        (wait % ("'{completed}', '{t}'", "NULL"), "not one that becomes completed"),
        (f"heartbeat($1, {run}, '{{1}}', '{{0}}', '{{m}}')", "within a day, and not at once"),
        (
            "submit($1, 'm', '{a}', NULL, NULL, '{0}', NULL, '{1}', NULL, '{0}', NULL)",
            "a deadline is not at once",
        ),
        ("signal($1, 'm', gen_random_uuid(), 'a#b', NULL, NULL, NULL)", "must not contain #"),
        (submit % ("NULL", "ARRAY['{NULL}']"), "a tag must be text"),
        (submit % ("array_fill('k'::text, '{40001}')", "NULL"), "split it"),
    ):
        with subtests.test(why):
            assert why in await refused(worker, f"SELECT * FROM ledger.{call}", PROJECT)


async def test_no_lease_lasts_longer_than_a_day(
    ledger: Ledger, worker: asyncpg.Connection[Any]
) -> None:
    run = await ledger.submit("parse")
    claim = "SELECT * FROM ledger.claim($1, 'm', NULL, 1, $2)"
    beat = (
        "SELECT * FROM ledger.heartbeat($1, ARRAY[$2::uuid], ARRAY[$3::int],"
        " ARRAY[$4::interval], '{m}')"
    )
    two_days = timedelta(days=2)

    assert "at most a day" in await refused(worker, claim, PROJECT, two_days)
    [lease] = await worker.fetch(claim, PROJECT, timedelta(minutes=1))
    said = await refused(worker, beat, PROJECT, run.run_id, lease["token"], two_days)
    assert "within a day" in said
    [beaten] = await worker.fetch(beat, PROJECT, run.run_id, lease["token"], timedelta(hours=23))
    assert beaten["lease_until"] > lease["lease_until"]


async def test_no_content_is_larger_than_python_may_be_set_to_write(
    ledger: Ledger, worker: asyncpg.Connection[Any]
) -> None:
    run = await ledger.submit("parse")
    append = (
        "SELECT * FROM ledger.append($1, 'm', ARRAY[$2::uuid], NULL, '{note.added}', '{1}', NULL,"
        " NULL, ARRAY[$3::text], NULL, NULL, NULL, NULL)"
    )
    submit = (
        "SELECT * FROM ledger.submit($1, 'm', '{k}', ARRAY[$2::text], NULL, '{0}', NULL, '{1}',"
        " NULL, NULL, NULL)"
    )
    most = 16_777_216
    too_large = '{"a":"' + "x" * (most - 7) + '"}'

    assert "is more than 16,777,216 bytes" in await refused(
        worker, append, PROJECT, run.run_id, too_large
    )
    assert "is more than 16,777,216 bytes" in await refused(worker, submit, PROJECT, too_large)


@pytest.mark.parametrize("amount", ["cost", "steps"])
async def test_only_the_leases_holder_takes_a_cost_or_a_step_back(
    ledger: Ledger, worker: asyncpg.Connection[Any], amount: str
) -> None:
    await ledger.submit("parse")
    [lease] = await ledger.claim("w:1")
    await ledger.transition(
        lease, State.WAITING_TOOL, park=True, cost_usd_delta=1, step_count_delta=2
    )
    before = await ledger.get(lease.run_id)
    less: dict[str, Any] = {"cost_usd": Decimal("-0.5")} if amount == "cost" else {"step_count": -1}
    deltas = {f"{name}_delta": value for name, value in less.items()}
    given = ("{-0.5}", None) if amount == "cost" else (None, "{-1}")

    with pytest.raises(InvalidValue, match="holder"):
        await ledger.append(lease.run_id, NoteAdded(text="less", **less))
    with pytest.raises(InvalidValue, match="holder"):
        await ledger.transition(lease.run_id, State.CANCELLED, actor="ann", **deltas)
    for call in (
        (
            "append($1, 'm', ARRAY[$2::uuid], NULL, '{note.added}', '{1}', NULL, NULL, NULL, "
            "$3::text::numeric[], $4::text::int[], NULL, NULL)"
        ),
        "transition($1, '{m}', ARRAY[$2::uuid], NULL, '{cancelled}', NULL, NULL, NULL, NULL, "
        "$3::text::numeric[], $4::text::int[]" + ", NULL" * 5 + ")",
    ):
        said = await refused(worker, f"SELECT * FROM ledger.{call}", PROJECT, lease.run_id, *given)
        assert "holder" in said

    assert await ledger.get(lease.run_id) == before
