"""What SQL refuses of a webhook, as Python does: an administrator of a project may call it."""

from __future__ import annotations

import asyncpg
import pytest

from runfold.ledger.postgres.urls import driver_url
from runfold.ledger.webhooks import check_url
from tests.support.logins import login_of, with_login

ADD = "SELECT ledger.change_webhook('test', $1, $2, $3, $4, '{}', '{}', $5, false, NULL)"
ID, URL = "wh_0123456789ab", "https://example.com/told"


async def test_a_webhook_has_an_id_and_a_url_that_the_keeper_can_send_to(database: str) -> None:
    good = (URL, "HTTPS://example.com:8443?a=b@c", "https://[2606::1]/", "http://localhost:80/x")
    bad = (
        "http://example.com/", "https://u:p@example.com/", "https://u@example.com", "https:///x",
        "https://ex\u0430mple.com/", "http://localhost@example.com/", "http://127.0.0.1.example/",
        "https://example.com/a b", "ftp://example.com", "https://example.com/" + "x" * 2_000,
    )  # fmt: skip
    async with with_login(database, "runfold_worker", rights=("admin",)) as url:
        login = login_of(url)
        connection = await asyncpg.connect(driver_url(url))
        for number, each in enumerate(good):
            check_url(each)
            given = (login, f"wh_{number:012x}", "add", each, b"k" * 24)
            assert await connection.fetchval(ADD, *given)
        for webhook, action, each in (
            ("wh_../../x", "add", URL), ("wh_1", "add", URL), (ID, None, URL), (ID, "make", URL),
            *((ID, "add", each) for each in bad),
        ):  # fmt: skip
            with pytest.raises(asyncpg.PostgresError) as refused:
                await connection.fetchval(ADD, login, webhook, action, each, b"k" * 24)
            assert refused.value.sqlstate == "22023", each
        await connection.close()


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
        assert not await connection.fetchval(queue % ("'b'", runs, kinds, "'{x}'"))
        for call in (
            queue % ("NULL", runs, kinds, "'{x}'"),
            queue % ("'b'", runs, "ARRAY[E'\\x1b[31m']", "'{x}'"),
            queue % ("'b'", runs, kinds, "ARRAY[repeat('x', 10001)]"),
        ):
            with pytest.raises(asyncpg.InvalidParameterValueError):
                await connection.fetch(call)
        await connection.close()
