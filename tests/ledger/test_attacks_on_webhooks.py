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
        "https://example.com/a b", "ftp://example.com",
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
