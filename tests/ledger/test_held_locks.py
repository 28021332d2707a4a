"""What a login leaves open keeps nobody from disabling, revoking, pausing and signing in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import asyncpg
import pytest

from runfold.ledger import Ledger
from runfold.ledger.postgres.urls import driver_url
from tests.support.logins import login_of, with_login

BOUND: Final = 30
"""Seconds for what waits for two."""
RIGHTS: Final = ("submit", "work", "read", "schedule")
OWN: Final = "SELECT ledger.sign_in_by_password('ann', 'right', sha256('runfold_session_w'))"
"""Of the login that leaves it open."""
USER: Final = "SELECT ledger.change_user('boss', 'ann', '{}', {}, NULL, NULL, NULL)"
KEPT: Final = "'argon2id t=1 m=64 p=1', 'ssssssssssssssss', sha256('right')"
ADD, ANEW = USER.format("add", KEPT), USER.format("password", KEPT)
DISABLE: Final = USER.format("disable", "NULL, NULL, NULL")
ENTER: Final = "SELECT ledger.sign_in_by_password('ann', '{}', sha256('runfold_session_v'))"
TOKEN: Final = (
    "SELECT ledger.change_token('boss', 'rf_1', sha256('runfold_a'), 'ci', '1 day', NULL)",
    "SELECT ledger.change_access('*', 'boss', 'token:rf_1', '{read}', NULL, NULL, NULL)",
    "SELECT ledger.sign_in_by_token('runfold_a', sha256('runfold_session_t'))",
)
USE: Final = "SELECT ledger.use_token('{}')"
KIND: Final = "SELECT ledger.change_kind('test', 'boss', 'parse', 'kind.{}', {}, NULL, true)"
CLAIM: Final = "SELECT FROM ledger.claim('test', 'w', '{parse}', 1, '1 min')"
SCHEDULE: Final = (
    "SELECT ledger.put_schedule('test', 'boss', 'nightly', 'k', NULL, '0 3 * * *', 'UTC',"
    " '2030-01-01Z', p_ahead => true)"
)
ADVANCE: Final = (
    "SELECT ledger.advance_schedule('test', 'nightly', updated_at, next_at, '2030-01-02Z', NULL)"
    " FROM ledger.schedule"
)
SET_UP: Final = (
    ADD,
    ENTER.format("right").replace("session_v", "session_u"),
    ENTER.format("right").replace("session_v", "session_u"),
    ENTER.format("right"),  # which is on record then, and answered next
    *TOKEN,
    "UPDATE ledger.credential_use SET last_used_at = NULL",
    # Which each sign-in of the user deletes.
    (
        "INSERT INTO ledger.web_session (session_id, sha256, credential, created_at, expires_at,"
        " last_used_at) SELECT 'old', sha256('old'), 'user:ann', old.at, old.at, old.at"
        " FROM (SELECT now() - interval '40 days' AS at) AS old"
    ),
    (
        "UPDATE ledger.web_session SET last_used_at = clock_timestamp() - interval '5 min'"
        " WHERE session_id <> 'old'"
    ),
    KIND.format("limited", 1),
    SCHEDULE,
)
LEFT_OPEN: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "a wrong password": (ENTER.format("wrong"), (DISABLE, ANEW, ENTER.format("right"))),
    "a sign-in": (OWN, (DISABLE, ANEW, ENTER.format("right"))),
    "the use of a token": (
        USE.format("runfold_a"),
        (
            "SELECT ledger.change_token('boss', 'rf_1', NULL, NULL, NULL, NULL)",
            "SELECT ledger.change_access('*', 'boss', 'token:rf_1', '{}', NULL, NULL, NULL)",
            USE.format("runfold_a"),
            "SELECT ledger.sign_in_by_token('runfold_a', sha256('another'))",
        ),
    ),
    "the use of a session": (
        USE.format("runfold_session_u"),
        (DISABLE, ANEW, USE.format("runfold_session_u"), ENTER.format("right")),
    ),
    "the end of a session": (
        "SELECT ledger.end_session('runfold_session_u', NULL)",
        (DISABLE, ANEW, USE.format("runfold_session_u"), ENTER.format("right")),
    ),
    "a claim of a limited kind": (
        CLAIM,
        (KIND.format("paused", "NULL"), KIND.format("limited", 2), CLAIM),
    ),
    "the next time of a schedule": (ADVANCE, (ADVANCE,)),
    "a saved view": (
        "SELECT ledger.change_view('test', 'w', 'mine', 'kind:parse')",
        (
            KIND.format("paused", "NULL"),
            "SELECT ledger.change_access('test', 'boss', 'w', '{}', NULL, NULL, NULL)",
            "SELECT ledger.change_role('test', 'boss', 'role.granted', 'r', 'm', NULL)",
        ),
    ),
}


@pytest.fixture
async def login(database: str, ledger: Ledger) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A worker's login with rights in the project; it administers nothing."""
    await ledger.submit("parse")
    async with with_login(database, "runfold_worker", rights=RIGHTS) as url:
        connection: asyncpg.Connection[Any] = await asyncpg.connect(driver_url(url))
        yield connection
        await connection.close()


async def test_nothing_that_a_login_leaves_open_holds_up_what_controls_it(
    login: asyncpg.Connection[Any],
    connection: asyncpg.Connection[Any],
    subtests: pytest.Subtests,
) -> None:
    for statement in SET_UP:
        await connection.execute(statement)
    await login.execute(OWN)
    await connection.execute("SET lock_timeout = '300ms'")

    for name, (held, controls) in LEFT_OPEN.items():
        for control in controls:
            with subtests.test(name, control=control):
                left, tried = login.transaction(), connection.transaction()
                await left.start()
                await tried.start()
                try:
                    await login.execute(held)
                    await connection.execute(control)
                finally:
                    await tried.rollback()
                    await left.rollback()


HOOK: Final = (
    "SELECT ledger.change_webhook('test', 'boss', (SELECT webhook_id FROM ledger.webhook), '{}',"
    " 'https://a.example',"
    " '{{run.completed}}', '{{}}', sha256('s'), false, NULL)"
)
QUEUE: Final = (
    "SELECT ledger.queue_deliveries('test', webhook_id, checkpoint, checkpoint, '{}', '{}',"
    " '{}', '{}') FROM ledger.webhook_duties('test')"
)
END: Final = (
    "SELECT ledger.end_session(NULL, session_id) FROM ledger.web_session WHERE ended_at IS NULL"
)
PAUSE: Final = "SELECT ledger.change_schedule('test', 'boss', 'nightly', 'pause', NULL, 'why')"
NAMED: Final = {
    "a session": (USE.format("runfold_session_u"), END, "disable the user or revoke the token"),
    "a schedule": (ADVANCE, PAUSE, "nightly of project test is held by process"),
    "a schedule that is put": (
        ADVANCE.replace("nightly", "weekly"),
        SCHEDULE.replace("nightly", "weekly"),
        "weekly of project test is held by process",
    ),
    "a schedule that is dropped": (
        ADVANCE.replace("nightly", "daily"),
        "SELECT ledger.drop_schedule('test', 'boss', 'daily')",
        "daily of project test is held by process",
    ),
    "a webhook": (QUEUE, HOOK.format("pause"), " of project test is held by process"),
}


async def test_what_waits_for_another_login_waits_two_seconds_and_then_names_it(
    database: str, connection: asyncpg.Connection[Any], subtests: pytest.Subtests
) -> None:
    others = (SCHEDULE.replace("nightly", name) for name in ("weekly", "daily"))
    for statement in (*SET_UP, *others, HOOK.format("add")):
        await connection.execute(statement)
    async with with_login(database, "runfold_worker", "runfold_projector", rights=RIGHTS) as url:

        async def refusal(held: str, control: str) -> str:
            login = await asyncpg.connect(driver_url(url))
            owner = await asyncpg.connect(driver_url(database))
            async with login.transaction():
                await login.execute(held)
                with pytest.raises(asyncpg.LockNotAvailableError) as refused:
                    await owner.execute(control)
            await owner.close()
            await login.close()
            return str(refused.value)

        async with asyncio.timeout(BOUND):
            said = await asyncio.gather(
                *(refusal(held, order) for held, order, _ in NAMED.values())
            )
        for (name, (_, _, expected)), error in zip(NAMED.items(), said, strict=True):
            with subtests.test(name):
                assert expected in error
                assert name == "a session" or f"login {login_of(url)}" in error


async def test_the_record_of_a_read_waits_two_seconds_for_the_same_one(
    database: str, ledger: Ledger
) -> None:
    run = await ledger.submit("parse")
    note = "SELECT ledger.note_reads('test', ARRAY[$1::uuid], 'runs')"
    async with with_login(database, "runfold_worker", rights=RIGHTS) as url:
        holding, waiting = [await asyncpg.connect(driver_url(url)) for _ in range(2)]
        for _ in range(2):  # a new minute has a record of its own
            async with holding.transaction():
                await holding.execute(note, run.run_id)
                try:
                    await waiting.execute(note, run.run_id, timeout=BOUND)
                except asyncpg.LockNotAvailableError:
                    break
        else:
            pytest.fail("nobody waited")
        await holding.close()
        await waiting.close()


async def test_the_removal_of_a_webhook_waits_two_seconds_for_its_deliveries(
    database: str, connection: asyncpg.Connection[Any]
) -> None:
    await connection.execute(HOOK.format("add"))
    await connection.execute(
        "INSERT INTO ledger.delivery SELECT 'test', webhook_id, gen_random_uuid(), 1,"
        " 'run.completed', '{}', now() FROM ledger.webhook"
    )
    holding = await asyncpg.connect(driver_url(database))
    async with holding.transaction():
        await holding.execute("SELECT FROM ledger.delivery FOR UPDATE")
        with pytest.raises(asyncpg.LockNotAvailableError):
            await connection.execute(HOOK.format("remove"), timeout=BOUND)
    await holding.close()


async def test_work_is_done_by_one_or_by_those_who_share_it_while_their_sessions_live(
    ledger: Ledger, database: str
) -> None:
    begin, end = "SELECT ledger.begin_work($1, $2)", "SELECT ledger.end_work($1)"
    first, second = [await asyncpg.connect(driver_url(database)) for _ in range(2)]
    key = await first.fetchval(begin, "rebuild", True)
    shared = await second.fetchval(begin, "rebuild", True)
    await second.execute(end, shared)
    await second.execute(end, await second.fetchval(begin, "something else", False))
    await second.execute(end, key)  # of another session, and so it goes on
    with pytest.raises(asyncpg.LockNotAvailableError, match="is at work on rebuild"):
        await second.fetchval(begin, "rebuild", False)

    await first.close()
    await second.execute("SELECT pg_advisory_lock($1)", key)  # waits for the end of the session
    assert await ledger.pool.fetchval(begin, "rebuild", False)
    await second.close()
