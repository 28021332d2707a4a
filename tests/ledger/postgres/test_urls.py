"""URLs of databases, in the forms that managed services and tools hand out.

That each form leads to the database on every road: tests/ledger/postgres/test_roads.py.
"""

from __future__ import annotations

import socket
from typing import Any
from urllib.parse import quote

import pytest

from runfold.ledger import Ledger
from runfold.ledger.errors import DatabaseUnavailable, InvalidValue
from runfold.ledger.postgres.connections import connect, open_pool
from runfold.ledger.postgres.urls import HIDDEN, parse, shown
from tests.support.proxy import proxied


def _with(url: str, query: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}{query}"


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+asyncpg"])
async def test_every_scheme_leads_to_the_same_database(database: str, scheme: str) -> None:
    connection = await connect(scheme + database[database.index("://") :], "test")

    assert await connection.fetchval("SELECT 1") == 1
    await connection.close()


async def test_parameters_reach_the_server(database: str) -> None:
    url = _with(database, "application_name=my%20app&options=-c%20statement_timeout%3D7s")
    connection = await connect(url, "test")

    names = ("application_name", "statement_timeout", "TimeZone")
    settings = [await connection.fetchval("SELECT current_setting($1)", name) for name in names]
    await connection.close()

    assert settings == ["my app", "7s", "UTC"]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://h/d", {"host": ["h"], "port": [5432], "user": None, "database": "d"}),
        ("postgresql://u:p%40s%2Fs@h:1/d", {"user": "u", "password": "p@s/s", "port": [1]}),
        ("postgresql://u:p#x@h/d", {"password": "p#x", "host": ["h"], "database": "d"}),
        ("postgresql://u:a+b%20c%25@h/d", {"password": "a+b c%"}),
        ("postgresql://a:1,b/d", {"host": ["a", "b"], "port": [1, 5432]}),
        ("postgresql:///d?host=a,b&port=1,2", {"host": ["a", "b"], "port": [1, 2]}),
        ("postgresql://%2Fvar%2Frun:6000/d", {"host": ["/var/run"], "port": [6000]}),
        ("postgresql://[::1]:6/d", {"host": ["::1"], "port": [6]}),
        ("postgresql://", {"host": None, "user": None, "database": None, "dsn": None}),
        ("postgresql://u@h/?dbname=e", {"user": "u", "database": "e"}),
        ("postgresql://h/d?sslmode=require", {"dsn": "postgresql://?sslmode=require"}),
        ("postgresql://h/d?connect_timeout=1", {"timeout": 2.0}),
    ],
)
def test_a_url_is_read_as_libpq_reads_it(url: str, expected: dict[str, Any]) -> None:
    arguments = parse(url).arguments("test")

    assert {name: arguments[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("postgresql://h/d?channel_binding=require", "channel_binding"),
        ("postgresql://h/d?hostaddr=127.0.0.1", "hostaddr"),
        ("postgresql://h/d?require_auth=scram-sha-256", "require_auth"),
        ("postgresql://h/d?sslmode=sometimes", "sslmode"),
        ("postgresql://h/d?sslrootcert=system&sslmode=require", "sslrootcert"),
        ("postgresql://h/d?connect_timeout=soon", "connect_timeout"),
        ("postgresql://h/d?connect_timeout=0", "connect_timeout"),
        ("postgresql://h/d?search_path=x", "options="),
        ("postgresql://h:99999/d", "port"),
        ("postgresql://a,b/d?port=1,2,3", "2 hosts and 3 ports"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(url: str, named: str) -> None:
    with pytest.raises(InvalidValue, match=named):
        parse(url)


@pytest.mark.parametrize(
    "url",
    [
        "user:s3cret@h/d",
        "postgres:s3cret@h",
        "postgresql:/u:s3cret@h",
        "host=h password=s3cret",
        "postgresql://u:s3cret/x@h/d",
        "postgresql://u:x?s3cret@h/d",
        "postgresql://u:x@s3cret@h/d",
        "postgresql://u:12/s3cret@h/d",
        "postgresql://u:p@h/d?PASSWORD=s3cret",
        "postgresql://u:p@h/d?passwd=s3cret",
        "postgresql://u:p@h/d?s3cret",
        "postgresql://u:p@h/d?connect_timeout=s3cret",
        "mysql://u:s3cret@h/d",
    ],
)
async def test_a_url_that_cannot_be_read_shows_nothing_of_itself(url: str) -> None:
    assert shown(url) == HIDDEN
    with pytest.raises(InvalidValue) as caught:
        await open_pool(url, 1)

    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("url", ["", " ", 5])
async def test_an_empty_url_does_not_lead_to_the_built_in_server(
    url: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidValue, match="left out for the built-in"):
        async with Ledger.open(url):
            pass
    monkeypatch.setenv("RUNFOLD_URL", str(url))
    with pytest.raises(InvalidValue, match="left out for the built-in"):
        async with Ledger.open():
            pass


@pytest.mark.parametrize(
    "secret", ["s3cret", "s3#cret", "s3+cret", quote("s3@:/?cret%", safe=""), "s3:cret"]
)
@pytest.mark.parametrize(
    "form",
    [
        "u:{}@127.0.0.1:1/d",
        "u@127.0.0.1:1/d?password={}",
        "u%3A{}@127.0.0.1:1/d",
        "127.0.0.1:1/d?user=u:{}",
        "u@127.0.0.1:1/d?pass%77ord={}",
        "u@127.0.0.1:1/d?sslmode=disable&passfile=/{}",
        "u@127.0.0.1:1/d?options=-c%20app.token={}",
    ],
)
async def test_no_error_of_a_server_that_is_away_shows_a_password(form: str, secret: str) -> None:
    url = "postgresql://" + form.format(secret)
    with pytest.raises(DatabaseUnavailable) as caught:
        await open_pool(url, 1)

    assert "cret" not in str(caught.value)
    assert "127.0.0.1" in str(caught.value)


@pytest.mark.parametrize("form", ["127.0.0.1:1/d", "u@/d?host=/nowhere"])
async def test_an_address_without_a_server_is_asked_about(form: str) -> None:
    with pytest.raises(DatabaseUnavailable, match=r"; does PostgreSQL listen there\?$"):
        await open_pool(f"postgresql://{form}", 1)


async def test_connections_over_tcp_notice_a_silent_peer(database: str) -> None:
    asked = "keepalives_idle=42&keepalives_interval=7&keepalives_count=4&tcp_user_timeout=9000"
    async with proxied(database) as proxy:
        connection: Any = await connect(_with(proxy.url, asked), "test")
        own = connection._transport.get_extra_info("socket")  # noqa: SLF001  no public way to it
        alive = own.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        names = ("KEEPIDLE", "KEEPINTVL", "KEEPCNT", "USER_TIMEOUT")
        kept = [own.getsockopt(6, getattr(socket, f"TCP_{name}")) for name in names]
        await connection.close()

    assert own.family != socket.AF_UNIX
    assert (alive, *kept) == (1, 42, 7, 4, 9_000)
