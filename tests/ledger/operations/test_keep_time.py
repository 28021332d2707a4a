"""A server's clock that is set back: the ledger's time goes on from what is recorded."""

from __future__ import annotations

from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

import asyncpg
import pytest

from runfold.ledger import Ledger, State, api_tokens
from runfold.ledger.operations.reap import pulse
from runfold.ledger.postgres import schema
from runfold.ledger.postgres.object_differences import object_differences
from tests.support.clock import set_clock
from tests.support.logins import login_of, with_login
from tests.support.runs import claimed
from tests.support.waiting import until

HOUR = timedelta(hours=1)
BODY = "SELECT prosrc FROM pg_proc WHERE oid = 'ledger.now()'::regprocedure"
CHANGES = "SELECT type FROM ledger.control_event WHERE subject = 'clock:ledger' ORDER BY number"


async def now(connection: asyncpg.Connection) -> datetime:
    """Return the ledger's time."""
    at: datetime = await connection.fetchval("SELECT ledger.now()")
    return at


async def clock(connection: asyncpg.Connection) -> datetime:
    """Return the server's time, as the ledger sees it."""
    at: datetime = await connection.fetchval("SELECT ledger.clock()")
    return at


async def changes(connection: asyncpg.Connection) -> list[Any]:
    """Return what the control history says of the clock."""
    return [row["type"] for row in await connection.fetch(CHANGES)]


async def test_a_lease_of_the_dead_ends_on_time_though_the_clock_is_set_back(
    ledger: Ledger, connection: asyncpg.Connection
) -> None:
    lease = await claimed(ledger, ttl=0.3)
    await set_clock(connection, -HOUR)

    await until(ledger.reap)

    assert (await ledger.get(lease.run_id)).state == State.PENDING
    assert await now(connection) > lease.until
    assert await changes(connection) == ["clock.set_back"]


async def test_what_comes_due_comes_due_on_time(
    ledger: Ledger, connection: asyncpg.Connection
) -> None:
    await ledger.submit("parse", delay=0.5)
    expected = await ledger.submit("parse", deadline=0.5)
    await set_clock(connection, -HOUR)
    await pulse(ledger.project, None)

    await until(ledger.reap)

    assert (await ledger.get(expected.run_id)).state == State.CANCELLED
    assert len(await ledger.claim("w:1")) == 1


async def test_time_goes_on_from_what_is_recorded_a_tenth_slower(
    ledger: Ledger, connection: asyncpg.Connection
) -> None:
    run = await ledger.submit("parse")
    await set_clock(connection, -HOUR)
    await pulse(ledger.project, None)

    lead = await now(connection) - await clock(connection)
    await set_clock(connection, -HOUR / 2)  # half an hour later
    later = await now(connection)

    assert HOUR - timedelta(minutes=5) < lead < HOUR
    gone = later - run.created_at
    assert abs(gone - HOUR / 2 * 0.9) < timedelta(minutes=5)
    assert (await ledger.submit("parse")).created_at > later


async def test_a_clock_that_has_caught_up_is_the_ledgers_again(
    ledger: Ledger, connection: asyncpg.Connection
) -> None:
    plain = await connection.fetchval(BODY)
    await ledger.submit("parse")
    await set_clock(connection, -HOUR)
    await pulse(ledger.project, None)
    kept = await connection.fetchval(BODY)

    await set_clock(connection, timedelta())
    for _ in range(2):
        await pulse(ledger.project, None)

    before, within, after = await clock(connection), await now(connection), await clock(connection)
    assert before <= within <= after
    assert plain == " SELECT ledger.clock() " != kept
    assert await connection.fetchval(BODY) == plain
    assert await changes(connection) == ["clock.set_back", "clock.caught_up"]


async def test_new_runs_do_not_hide_that_the_clock_was_set_back(
    ledger: Ledger, connection: asyncpg.Connection
) -> None:
    run = await ledger.submit("parse")
    await pulse(ledger.project, None)  # it remembers the newest time
    await set_clock(connection, -HOUR)
    await ledger.submit_many([{"kind": "parse"}] * 200)

    await pulse(ledger.project, None)

    assert await now(connection) >= run.created_at


async def test_a_clock_that_is_set_back_again_is_seen_again(
    ledger: Ledger, connection: asyncpg.Connection
) -> None:
    for hours in (1, 2, 3):
        run = await ledger.submit("parse")
        await set_clock(connection, -hours * HOUR)
        await pulse(ledger.project, None)
        assert await now(connection) >= run.created_at


async def test_a_clock_was_ahead_for_a_while_and_recorded_it(
    ledger: Ledger, connection: asyncpg.Connection
) -> None:
    await set_clock(connection, HOUR)
    lease = await claimed(ledger, ttl=0.3)
    await set_clock(connection, timedelta())

    await until(ledger.reap)

    assert (await ledger.get(lease.run_id)).state == State.PENDING


async def test_a_clock_that_was_ahead_while_nothing_was_recorded_changes_nothing(
    ledger: Ledger, connection: asyncpg.Connection
) -> None:
    await ledger.submit("parse")
    await set_clock(connection, HOUR)
    await pulse(ledger.project, None)
    await set_clock(connection, timedelta())
    await pulse(ledger.project, None)

    assert await changes(connection) == []


@pytest.mark.parametrize("back", [timedelta(seconds=0.5), timedelta()])
async def test_a_small_step_is_nothing(
    ledger: Ledger, connection: asyncpg.Connection, back: timedelta
) -> None:
    await ledger.submit("parse")
    await set_clock(connection, -back)

    for _ in range(2):
        await pulse(ledger.project, None)

    assert await changes(connection) == []


async def test_an_upgrade_keeps_the_ledgers_time(
    ledger: Ledger, database: str, connection: asyncpg.Connection
) -> None:
    run = await ledger.submit("parse")
    await set_clock(connection, -HOUR)
    await pulse(ledger.project, None)
    assert await object_differences(ledger.pool) == ["function clock is changed"]  # not now()
    await connection.execute(schema.sql("values/now"))

    await connection.execute("COMMENT ON SCHEMA ledger IS ''")
    await connection.execute(schema.install_script(["values/now"]))

    assert await now(connection) >= run.created_at


async def test_a_server_that_takes_no_writes_tells_the_time(
    ledger: Ledger, connection: asyncpg.Connection
) -> None:
    await ledger.submit("parse")
    await connection.execute("SET default_transaction_read_only = on")

    assert await connection.fetchval("SELECT ledger.keep_time() <= ledger.now()")


async def test_a_control_history_in_other_hands_is_not_waited_for(
    ledger: Ledger, connection: asyncpg.Connection
) -> None:
    await ledger.submit("parse")
    await set_clock(connection, -HOUR)
    async with connection.transaction():
        await connection.execute("SELECT ledger.lock_control('*')")  # as an open order does
        await ledger.reap()
    assert await changes(connection) == []

    await ledger.reap()

    assert await changes(connection) == ["clock.set_back"]


async def test_a_rebase_brings_up_the_newest_time_that_replication_leaves_behind(
    ledger: Ledger, connection: asyncpg.Connection
) -> None:
    run = await ledger.submit("parse")
    await connection.execute("SELECT setval('ledger.newest_time', 0)")

    await connection.execute("SELECT ledger.feed_rebase()")

    known = await connection.fetchval("SELECT last_value FROM ledger.newest_time")
    assert abs(known / 1_000_000 - run.created_at.timestamp()) < 0.001


async def test_what_has_ended_stays_ended_though_the_clock_is_set_back(
    ledger: Ledger, connection: asyncpg.Connection
) -> None:
    secret = f"runfold_session_{'x' * 32}"
    use = "SELECT ledger.use_token($1)"
    _, old = await api_tokens.make_token(ledger.project, "ci", days=1)
    sign_in = "SELECT ledger.sign_in_by_token($1, sha256($2))"
    assert await connection.fetchval(sign_in, old, secret.encode()) is not None
    assert await connection.fetchval(use, secret) is not None

    await set_clock(connection, 25 * HOUR)
    await ledger.submit("parse")  # that it is so late is on record
    for ahead in (25, 23):
        await set_clock(connection, ahead * HOUR)
        await pulse(ledger.project, None)
        assert await connection.fetchval(use, old) is None
        assert await connection.fetchval(use, secret) is None

    _, fresh = await api_tokens.make_token(ledger.project, "ci", days=1)
    assert await connection.fetchval(use, fresh) is not None
    await set_clock(connection, 50 * HOUR)
    assert await connection.fetchval(use, fresh) is None, "a day, not what the clock was ahead"


GRANT = """
SELECT ledger.change_access('test', 'tests', $1, '{work,read}', '{*}',
  ledger.now() + interval '1 day', NULL)
"""
ASK = (
    "SELECT ledger.check_my_access('test', 'work', NULL) WHERE $1::uuid IS NOT NULL",
    "SELECT FROM ledger.read_run('test', $1)",
)
SEE = (
    "SELECT count(*) = 1 FROM ledger.run_state WHERE run_id = $1",
    "SELECT count($1::uuid) = 1 AND ledger.channel('test') IS NOT NULL",
)
"""What looks for a grant: check_access and check_grants, has_right; projects_seen in a policy,
projects_with."""


async def test_a_grant_that_has_ended_stays_ended_though_the_clock_is_set_back(
    ledger: Ledger, database: str, connection: asyncpg.Connection
) -> None:
    run = await ledger.submit("parse")

    async def is_refused() -> bool:
        for question in ASK:
            with pytest.raises(asyncpg.PostgresError, match="has no access to it"):
                await login.execute(question, run.run_id)
        return not any([await login.fetchval(look, run.run_id) for look in SEE])

    async with with_login(database, "runfold_worker") as url:
        login = await asyncpg.connect(url)
        await connection.execute(GRANT, login_of(url))
        for question in ASK:
            await login.execute(question, run.run_id)
        assert all([await login.fetchval(look, run.run_id) for look in SEE])

        await set_clock(connection, 25 * HOUR)
        await ledger.submit("parse")  # that it is so late is on record
        for ahead in (25, 23):
            await set_clock(connection, ahead * HOUR)
            await pulse(ledger.project, None)
            assert await is_refused()

        await connection.execute(GRANT, login_of(url))
        await set_clock(connection, 50 * HOUR)
        assert await is_refused(), "a day, not what the clock was ahead"
        await login.close()


async def test_a_user_may_sign_in_though_tries_were_recorded_by_a_clock_ahead(
    connection: asyncpg.Connection,
) -> None:
    await connection.execute(
        "SELECT ledger.change_user('boss', 'ann', 'add', 'argon2id t=1 m=64 p=1', $1, $2, NULL,"
        " NULL, NULL)", b"s" * 16, sha256(b"right").digest()
    )  # fmt: skip
    sign_in = "SELECT ledger.sign_in_by_password('ann', $1, sha256('x'))"
    await set_clock(connection, HOUR)
    for number in range(10):
        assert await connection.fetchval(sign_in, b"wrong %d" % number) is None
    for _ in range(2):
        assert await connection.fetchval(sign_in, b"right") is None

    await set_clock(connection, timedelta(0))

    assert await connection.fetchval(sign_in, b"right") is None, "it is on record, and no more"
    assert await connection.fetchval(sign_in, b"right") == "user:ann"
