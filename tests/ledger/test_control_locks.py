"""A login that leaves its transaction open holds up no change of control of another project."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from runfold.ledger import Ledger, State, access, api_tokens
from runfold.ledger.control_history import control_history
from runfold.ledger.errors import DatabaseUnavailable
from runfold.ledger.postgres.urls import driver_url
from tests.support.logins import grant, login_of, with_login
from tests.support.runs import waiting
from tests.support.waiting import BOUND

OTHER = "other"
PUT = (
    "SELECT ledger.put_schedule('other', $1, 'nightly', 'k', NULL, '0 3 * * *', 'UTC', now(), NULL,"
    " true)"
)


@pytest.fixture
async def idler(database: str) -> AsyncIterator[tuple[str, int]]:
    """A login with the right schedule in another project, which has changed one and not ended."""
    async with (
        Ledger.open(database, OTHER, create_project=True),
        with_login(database, "runfold_worker", rights=("schedule",), project=OTHER) as url,
    ):
        connection: asyncpg.Connection[Any] = await asyncpg.connect(driver_url(url))
        async with connection.transaction():
            await connection.execute(PUT, login_of(url))
            yield login_of(url), connection.get_server_pid()
        await connection.close()


@pytest.mark.usefixtures("idler")
async def test_control_of_other_projects_and_of_the_database_does_not_wait(
    database: str, ledger: Ledger
) -> None:
    async with asyncio.timeout(BOUND), Ledger.open(database, "third", create_project=True) as third:
        await ledger.pause_kind("parse", actor="ann", ahead=True)
        await access.grant(ledger.project, "w_login", ["work"])
        await access.grant(ledger.project, "w_login", ["audit"], everywhere=True)
        await api_tokens.make_token(ledger.project, "ci")
        await third.grant_role("finance", "ann")

    numbers = [e.number for e in await control_history(ledger.project)]
    assert numbers == list(range(1, len(numbers) + 1))


async def test_control_of_the_same_project_waits_no_longer_than_a_bound_and_names_the_holder(
    database: str, idler: tuple[str, int]
) -> None:
    login, pid = idler
    async with Ledger.open(database, OTHER) as other:
        with pytest.raises(DatabaseUnavailable, match="held by process") as refused:
            await other.pause_kind("parse", actor="ann", ahead=True)

    said = str(refused.value)
    assert f"project {OTHER}" in said
    assert f"process {pid}, login {login}" in said
    assert f"pg_terminate_backend({pid})" in said


ORDERS = (
    "SELECT ledger.change_kind('test', 'a', 'k', 'kind.limited', 1, NULL, true)",
    "SELECT ledger.change_role('test', 'a', 'role.granted', 'r', 'm', NULL)",
    "SELECT ledger.change_access('test', 'a', 'x', '{read}', NULL, NULL, NULL)",
    PUT.replace("'other', $1", "'test', 'a'"),
    "SELECT ledger.change_access('*', 'a', 'x', '{read}', NULL, NULL, NULL)",
    "SELECT ledger.change_token('a', 't', NULL, NULL, NULL, NULL)",
    "SELECT ledger.change_user('a', 'ann', 'disable', NULL, NULL, NULL, NULL, NULL, NULL)",
    (
        "SELECT ledger.change_user('a', 'bob', 'add', NULL, NULL, NULL, 'https://id.example', 'b',"
        " NULL)"
    ),
)


async def test_the_same_order_given_twice_waits_no_longer_than_any_other(
    database: str, connection: asyncpg.Connection[Any], subtests: pytest.Subtests
) -> None:
    """Not for the row that both write either, which is waited for without a bound."""
    await connection.execute(ORDERS[-1].replace("bob", "ann").replace("'b'", "'a'"))
    made = "SELECT ledger.change_token('a', 't', sha256('t'), 'ci', '1 day', NULL)"
    await connection.execute(made)
    async with connection.transaction():
        for order in ORDERS:
            await connection.execute(order)
        holder = f"held by process {connection.get_server_pid()}, "

        async def refusal(order: str) -> str:
            another = await asyncpg.connect(driver_url(database))
            with pytest.raises((TimeoutError, asyncpg.PostgresError)) as refused:
                await another.execute(order, timeout=BOUND)
            await another.close()
            return str(refused.value)

        for order, said in zip(ORDERS, await asyncio.gather(*map(refusal, ORDERS)), strict=True):
            with subtests.test(order):
                assert holder in said


async def test_a_setting_that_another_changes_is_waited_for_two_seconds_and_no_longer(
    database: str, ledger: Ledger, connection: asyncpg.Connection[Any], subtests: pytest.Subtests
) -> None:
    asking = (await waiting(ledger, State.WAITING_APPROVAL, park=True)).run_id
    asked = (await ledger.get(asking)).version
    settings = (
        "SELECT ledger.change_view('test', 'a', 'mine', 'state:failed')",
        f"SELECT ledger.snooze('test', 'a', '{asking}', {asked}, now() + interval '1 hour')",
    )
    for setting in settings:
        another = await asyncpg.connect(driver_url(database))
        with subtests.test(setting):
            async with connection.transaction():
                await connection.execute(setting)
                with pytest.raises(asyncpg.LockNotAvailableError):
                    await another.execute(setting, timeout=BOUND)
        await another.close()


async def test_a_role_given_on_an_old_snapshot_is_a_conflict_to_be_tried_again(
    ledger: Ledger, connection: asyncpg.Connection[Any]
) -> None:
    async with connection.transaction(isolation="repeatable_read"):
        await connection.execute("SELECT 1")
        await ledger.grant_role("finance", "ann")
        with pytest.raises(asyncpg.SerializationError):
            await connection.execute(ORDERS[1])


async def test_a_grant_that_is_not_ended_holds_up_no_revocation_and_no_other_grant_for_long(
    database: str, ledger: Ledger
) -> None:
    """To let a login in locks the row of the database for the whole server."""
    async with (
        Ledger.open(database, OTHER, create_project=True),
        with_login(database, "runfold_worker", rights=("admin",), project=OTHER) as admin,
        with_login(database, "runfold_worker") as friend,
        with_login(database, "runfold_worker", rights=("work",)) as left,
        with_login(database, "runfold_worker") as joined,
    ):
        connection: asyncpg.Connection[Any] = await asyncpg.connect(driver_url(admin))
        async with asyncio.timeout(BOUND), connection.transaction():
            await grant(connection, login_of(friend), ("work",), project=OTHER, actors=("f",))
            await access.revoke(ledger.project, login_of(left))
            with pytest.raises(DatabaseUnavailable, match=str(connection.get_server_pid())):
                await access.grant(ledger.project, login_of(joined), ["work"])
        await connection.close()

        assert not await access.grants(ledger.project, login_of(left))
