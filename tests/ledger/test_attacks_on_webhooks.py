"""What SQL refuses of a webhook, as Python does: an administrator of a project may call it."""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime

import asyncpg
import pytest

from runfold.ledger import Ledger
from runfold.ledger.errors import InvalidValue
from runfold.ledger.postgres.urls import driver_url
from runfold.ledger.webhooks import SECRET_PREFIX, check_url
from runfold.workers.duties.webhooks.deliverer import Terms
from runfold.workers.duties.webhooks.posting import Poster
from runfold.workers.duties.webhooks.sender import WebhookSender
from tests.support.logins import login_of, with_login

ADD = "SELECT ledger.change_webhook('test', $1, $2, $3, $4, '{}', '{}', $5, false, NULL)"
ID, URL = "wh_0123456789ab", "https://example.com/told"
START = "'1/1:1:@0//0'"


async def test_a_webhook_has_a_url_that_the_sender_can_send_to_and_no_id_of_its_callers(
    database: str,
) -> None:
    good = (URL, "HTTPS://example.com:8443?a=b@c", "https://[2606::1]/", "http://localhost:80/x")
    bad = (
        "http://example.com/", "https://u:p@example.com/", "https://u@example.com", "https:///x",
        "https://ex\u0430mple.com/", "http://localhost@example.com/", "http://127.0.0.1.example/",
        "https://example.com/a b", "ftp://example.com", "https://example.com/" + "x" * 2_000,
    )  # fmt: skip
    async with with_login(database, "runfold_worker", rights=("admin",)) as url:
        login = login_of(url)
        connection = await asyncpg.connect(driver_url(url))
        for each in good:
            check_url(each)
            made = await connection.fetchval(ADD, login, None, "add", each, b"k" * 24)
            assert re.fullmatch("wh_[0-9a-f]{12}", made)
        for webhook, action, each in (
            (ID, "add", URL), (made, "add", URL), (None, None, URL), (None, "make", URL),
            *((None, "add", each) for each in bad),
        ):  # fmt: skip
            with pytest.raises(asyncpg.PostgresError) as refused:
                await connection.fetchval(ADD, login, webhook, action, each, b"k" * 24)
            assert refused.value.sqlstate == "22023", each
        await connection.close()


async def test_the_error_of_one_webhook_too_many_shows_no_secret(ledger: Ledger) -> None:
    many = f"{ADD} FROM generate_series(1, 50)"
    await ledger.pool.execute(many, "ann", None, "add", URL, b"k" * 24)
    secret = SECRET_PREFIX + base64.b64encode(b"canary" * 4).decode()

    with pytest.raises(InvalidValue, match="project test has 50 webhooks already") as refused:
        await ledger.webhooks.add("https://a.b", actor="a", secret=secret)

    assert "canary" not in str(refused.value)
    assert "[" not in str(refused.value)


async def test_no_delivery_is_put_off_to_a_time_that_never_comes_or_that_nobody_can_read(
    database: str,
) -> None:
    run = "'01890000-0000-7000-8000-000000000000'"
    attempt = f"SELECT ledger.record_attempt('test', '{ID}', {run}, 1, 1, %s)"
    async with with_login(database, "runfold_projector", rights=("read",)) as url:
        connection = await asyncpg.connect(driver_url(url))
        await connection.execute(attempt % "0, 500, 'x', '30 days'")
        await connection.fetch(f"SELECT ledger.due_deliveries('test', '{ID}', 10, '1 min')")
        for call in (
            attempt % "0, 500, 'x', '31 days'",
            attempt % "0, 500, 'x', '-200000 days'",
            attempt % "-1, 500, 'x', NULL",
            attempt % "NULL, 500, 'x', NULL",
            f"SELECT ledger.due_deliveries('test', '{ID}', 10, '200000 years')",
            f"SELECT ledger.due_deliveries('test', '{ID}', 10, NULL)",
            f"SELECT ledger.due_deliveries('test', '{ID}', NULL, '1 min')",
        ):
            with pytest.raises(asyncpg.InvalidParameterValueError):
                await connection.fetch(call)
        await connection.close()


async def test_no_delivery_has_a_type_or_a_body_that_no_event_has(database: str) -> None:
    queue = f"SELECT ledger.queue_deliveries('test', '{ID}', 'a', %s, %s, %s, %s)"
    runs, kinds = "ARRAY[gen_random_uuid()], '{1}'", "'{a}'"
    async with with_login(database, "runfold_projector", rights=("read",)) as url:
        connection = await asyncpg.connect(driver_url(url))
        assert not await connection.fetchval(queue % (START, runs, kinds, "'{x}'"))
        for call in (
            queue % ("NULL", runs, kinds, "'{x}'"),
            queue % (START, runs, "ARRAY[E'\\x1b[31m']", "'{x}'"),
            queue % (START, runs, kinds, "ARRAY[repeat('x', 10001)]"),
        ):
            with pytest.raises(asyncpg.InvalidParameterValueError):
                await connection.fetch(call)
        await connection.close()


async def test_a_senders_login_leaves_no_checkpoint_with_which_no_sender_could_go_on(
    ledger: Ledger, database: str
) -> None:
    await ledger.webhooks.add(URL)
    async with with_login(database, "runfold_projector", rights=("read",)) as url:
        connection = await asyncpg.connect(driver_url(url))
        [duty] = await connection.fetch("SELECT * FROM ledger.webhook_duties('test')")
        queue = "SELECT ledger.queue_deliveries('test', $1, $2, $3, '{}', '{}', '{}', '{}')"
        place = (duty["webhook_id"], duty["checkpoint"])
        generation, moment, _, _ = duty["checkpoint"].split("/")
        snapshot, position, *newest = moment.split("@")
        for wrong in (
            "", "x", f"{generation}/{moment}", f"{generation}/{moment}//x", f"2/{moment}//0",
            f"{generation}/9000000:9000000:@{position}//0",
            "@".join((f"{generation}/{snapshot}", "999999999", *newest)) + "//0",
            f"{generation}/{moment}//999999999", f"{generation}/{moment}/5:3:@0/0",
        ):  # fmt: skip
            with pytest.raises(asyncpg.PostgresError) as refused:
                await connection.fetchval(queue, *place, wrong)
            assert refused.value.sqlstate in {"22023", "22P02", "RF413"}, wrong
        assert await connection.fetchval(queue, *place, duty["checkpoint"])
        await connection.close()


async def test_more_deliveries_than_a_call_takes_are_forgotten_at_once(
    ledger: Ledger, connection: asyncpg.Connection
) -> None:
    webhook, _ = await ledger.webhooks.add(URL)
    await connection.execute(
        """
        INSERT INTO ledger.delivery (project_id, webhook_id, run_id, version, type, body,
          created_at, next_at, attempts)
        SELECT 'test', $1, gen_random_uuid(), 1, 'run.failed', '{}', now() - interval '31 days',
          NULL, 1
        FROM generate_series(1, 250)
        """,
        webhook,
    )

    await WebhookSender(ledger, Terms(Poster(loopback=True))).once()

    assert await ledger.webhooks.deliveries(webhook) == []


async def test_deliveries_that_ended_long_ago_are_forgotten_of_a_paused_webhook_as_well(
    ledger: Ledger, connection: asyncpg.Connection
) -> None:
    webhook, _ = await ledger.webhooks.add(URL)
    await ledger.webhooks.pause(webhook)
    await connection.execute(
        """
        INSERT INTO ledger.delivery (project_id, webhook_id, run_id, version, type, body,
          created_at, next_at, attempts)
        SELECT 'test', $1, gen_random_uuid(), 1, 'run.failed', '{}',
          now() - days * interval '1 day', CASE WHEN waits THEN now() END, 1
        FROM (VALUES (31, false), (31, true), (29, false)) AS v (days, waits)
        """,
        webhook,
    )

    await WebhookSender(ledger, Terms(Poster(loopback=True))).tick()

    left = await ledger.webhooks.deliveries(webhook)
    ages = [(datetime.now(UTC) - one.created_at).days for one in left]
    assert ages == [29, 31]
    assert [one.next_at is None for one in left] == [True, False]


@pytest.mark.usefixtures("other")
async def test_a_delivery_is_taken_once_in_its_turn_and_by_its_own_project(
    ledger: Ledger, connection: asyncpg.Connection, database: str
) -> None:
    webhook, _ = await ledger.webhooks.add(URL)
    held, ended, both = (f"01890000-0000-7000-8000-00000000000{number}" for number in (1, 2, 3))
    await connection.executemany(
        "INSERT INTO ledger.delivery (project_id, webhook_id, run_id, version, type, body, "
        "created_at, next_at, follows) VALUES ('test', $1, $2, $3, 'run.failed', '{}', now(), "
        "now() + $4::text::interval, $5)",
        [
            (webhook, held, 1, "1 day", False), (webhook, held, 3, "-1 min", True),
            (webhook, ended, 1, None, False), (webhook, ended, 2, "-1 min", False),
            (webhook, both, 1, "-1 min", False), (webhook, both, 2, "-1 min", True),
        ],
    )  # fmt: skip
    due = "SELECT run_id, version FROM ledger.due_deliveries($1, $2, 10, '1 hour')"

    async def taken(by: asyncpg.Connection, project: str = "test") -> list[tuple[str, int]]:
        rows = await by.fetch(due, project, webhook)
        return sorted((str(row["run_id"]), row["version"]) for row in rows)

    assert await taken(connection, "other") == []
    await ledger.webhooks.pause(webhook)
    assert await taken(connection) == []
    await ledger.webhooks.resume(webhook)
    other = await asyncpg.connect(driver_url(database))
    await other.execute("SET lock_timeout = '5s'")  # so that one that waits for it fails
    async with connection.transaction():
        assert await taken(connection) == [(ended, 2), (both, 1)]
        assert await taken(other) == []
    await other.close()
    assert await taken(connection) == []

    attempt = "SELECT ledger.record_attempt($1, $2, $3, 1, $4, 0, 500, $5, $6::text::interval)"
    state = (
        "SELECT attempts, next_at > now() AS waits, delivered_at IS NOT NULL AS delivered "
        "FROM ledger.delivery WHERE run_id = $1 AND version = 1"
    )
    for project, number, error, again, kept in (
        ("other", 1, None, None, (0, True, False)),
        ("test", 2, None, None, (0, True, False)),
        ("test", 1, "no answer", "1 hour", (1, True, False)),
        ("test", 1, None, None, (1, True, False)),
        ("test", 2, None, None, (2, None, True)),
        ("test", 3, "no answer", None, (3, None, True)),
    ):
        await connection.execute(attempt, project, webhook, both, number, error, again)
        [row] = await connection.fetch(state, both)
        assert tuple(row) == kept


@pytest.mark.usefixtures("other")
async def test_a_project_moves_sends_again_and_forgets_nothing_of_anothers_webhook(
    ledger: Ledger, connection: asyncpg.Connection
) -> None:
    webhook, _ = await ledger.webhooks.add(URL)
    place = await connection.fetchval("SELECT checkpoint FROM ledger.webhook")
    await ledger.submit("parse")
    further = await connection.fetchval(
        "SELECT generation || '/' || moment || '//0' FROM ledger.feed_now()"
    )
    run = "01890000-0000-7000-8000-000000000001"
    queue = (
        f"SELECT ledger.queue_deliveries($1, '{webhook}', $2, $3, ARRAY['{run}'::uuid], '{{1}}', "
        "'{run.failed}', '{x}')"
    )

    assert not await connection.fetchval(queue, "other", place, further)
    assert not await connection.fetchval(queue, "test", further, further)
    await ledger.webhooks.pause(webhook)
    assert not await connection.fetchval(queue, "test", place, further)
    await ledger.webhooks.resume(webhook)
    assert await connection.fetchval("SELECT checkpoint FROM ledger.webhook") == place
    assert await connection.fetchval(queue, "test", place, further)
    assert await connection.fetchval(queue, "test", further, further)  # the same, once
    assert await connection.fetchval("SELECT count(*) FROM ledger.delivery") == 1

    await connection.execute(
        "UPDATE ledger.delivery SET next_at = NULL, created_at = now() - interval '31 days'"
    )
    resend = f"SELECT ledger.resend_delivery($1, 'ann', '{webhook}', '{run}', 1)"
    assert not await connection.fetchval(resend, "other")
    assert await connection.fetchval("SELECT ledger.forget_deliveries('other')") == 0
    assert not await connection.fetch("SELECT * FROM ledger.webhook_duties('other')")
    assert await connection.fetchval("SELECT ledger.forget_deliveries('test')") == 1

    await ledger.submit("parse")
    change = f"SELECT ledger.change_webhook('test', $1, '{webhook}', $2, {', '.join(['NULL'] * 4)}"
    change += ", false, NULL)"
    assert await connection.fetchval(change, "ann", "pause") == webhook
    assert await connection.fetchval(change, "bo", "pause") is None
    assert await connection.fetchval("SELECT actor FROM ledger.webhook") == "ann"
    await ledger.webhooks.resume(webhook, from_now=True)
    assert await connection.fetchval("SELECT checkpoint FROM ledger.webhook") != further
