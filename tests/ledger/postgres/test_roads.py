"""Every form of URL on every road to the database: upgrade, pool, heart and listener.

Commands are another road: tests/console/test_urls.py.
"""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit
from uuid import UUID

import pytest

from runfold.ledger import Ledger, State
from runfold.ledger.errors import DatabaseUnavailable
from runfold.ledger.events import LeaseHeartbeat
from runfold.ledger.postgres import schema
from runfold.ledger.postgres.connections import connect
from runfold.ledger.postgres.urls import shown
from runfold.workers import Context, handler
from tests.support.databases import PROJECT
from tests.support.front import certificate, front, server_context
from tests.support.waiting import until
from tests.support.working import FAST, ended, working

LATE = 3_600.0
QUERIES = (
    "sslmode=disable",
    "sslmode=prefer&channel_binding=prefer",
    "application_name=my%20app",
    "fallback_application_name=mine",
    "connect_timeout=5",
    "options=-c%20statement_timeout%3D30s%20-c%20search_path%3Dpublic",
    "keepalives=1&keepalives_idle=30&keepalives_interval=10&keepalives_count=3",
    "keepalives=0&tcp_user_timeout=10000",
    "target_session_attrs=read-write&load_balance_hosts=random",
    "gssencmode=disable&client_encoding=UTF8",
    "ssl=true&sslmode=disable",
)
PASSWORDS = (
    "p@ss:w/rd?#&=%",
    "100%25+plus",
    "ünï çødé ☃",
    "' \"\\ $(id) {0} %s",
    "[::1]",
    "a=b&sslmode=disable",
)


LISTENING = """
SELECT EXISTS (SELECT FROM pg_stat_activity
  WHERE datname = current_database() AND query LIKE 'LISTEN%' AND state = 'idle')
"""


async def travel(url: str) -> None:
    """Take every road that a program with workers takes."""
    await schema.upgrade(url)
    async with Ledger.open(url, PROJECT) as ledger:

        async def beaten(run_id: UUID) -> bool:
            return any(isinstance(e, LeaseHeartbeat) for e in await ledger.history(run_id))

        @handler("held")
        async def held(ctx: Context) -> None:
            await until(lambda: beaten(ctx.run_id))

        await until(lambda: ledger.pool.fetchval(f"SELECT NOT ({LISTENING})"))  # of a case before
        async with working(ledger, held, poll=LATE):
            await until(lambda: ledger.pool.fetchval(LISTENING))
            run = await ended(ledger, await ledger.submit("held"))
    assert run.state == State.COMPLETED


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in FAST.items():
        monkeypatch.setenv(name, value)


def user(url: str) -> str:
    """Return who a database's URL lets in, with the password where it has one."""
    return urlsplit(url).netloc.rpartition("@")[0]


def forms(url: str, port: int) -> dict[str, str]:
    """Return a database's URL in every form that needs neither TLS nor a password."""
    parts = urlsplit(url)
    joined = "&" if parts.query else "?"
    several = f"postgresql://{user(url)}@127.0.0.1:1,127.0.0.1:{port}{parts.path}?sslmode=disable"
    made = {query: f"{url}{joined}{query}" for query in QUERIES} | {"several hosts": several}
    if folder := parse_qs(parts.query).get("host"):
        made["a socket's folder"] = f"postgresql://postgres@{quote(folder[0], safe='')}{parts.path}"
    return made


@pytest.mark.slow
async def test_every_form_leads_every_road_to_the_database(
    database: str, subtests: pytest.Subtests
) -> None:
    for form in (*QUERIES, "several hosts", "a socket's folder"):
        with subtests.test(form), front(database) as opened:
            made = forms(database, opened.port)
            if form not in made:
                pytest.skip("the server of this test run has no socket")

            await travel(made[form])


async def test_every_password_leads_to_the_database_and_one_in_each_place_on_every_road(
    database: str, subtests: pytest.Subtests
) -> None:
    if urlsplit(database).password:
        pytest.skip("the server of this test run has a password of its own")
    for place, password in product(("user", "query"), PASSWORDS):
        with subtests.test(place=place, password=password):
            go = travel if password == PASSWORDS[0] else connect_and_close
            await _by_password(database, password, place, go)


async def _by_password(
    database: str, password: str, place: str, go: Callable[[str], Awaitable[None]]
) -> None:
    with front(database, password=password) as opened:
        where = f"127.0.0.1:{opened.port}/{opened.database}"
        written = quote(password, safe="")
        url = {
            "user": f"postgresql://postgres:{written}@{where}?sslmode=disable",
            "query": f"postgresql://postgres@{where}?sslmode=disable&password={written}",
        }[place]

        await go(url)

        assert password not in shown(url)
        assert written not in shown(url)
        with pytest.raises(
            DatabaseUnavailable, match=r"authentication failed.*~/\.pgpass"
        ) as caught:
            await connect(url.replace(written, written + "x"), "test")
        assert written not in str(caught.value)


@contextmanager
def secured(url: str, folder: Path) -> Iterator[tuple[str, str]]:
    """Put TLS before the database; yield its place and the certificate, percent-encoded."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    made, key = certificate(folder, "localhost")
    with front(url, tls=server_context(made, key)) as opened:
        yield f"{user(url)}@localhost:{opened.port}/{opened.database}", quote(str(made), safe="")
        assert opened.encrypted > 0


ENCRYPTED = (
    "sslmode=require",
    "sslmode=prefer",
    "sslmode=require&channel_binding=prefer",
    "ssl=true&sslmode=require",
    "sslmode=verify-ca&sslrootcert={certificate}",
    "sslmode=verify-full&sslrootcert={certificate}",
)


async def test_every_road_is_encrypted_where_the_url_asks_for_it(
    database: str, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    for query in ENCRYPTED:
        with subtests.test(query), secured(database, tmp_path) as (where, made):
            await travel(f"postgresql://{where}?{query.format(certificate=made)}")


async def test_a_certificate_of_somebody_else_is_refused_and_so_is_another_name(
    database: str, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    stranger, _ = certificate(other, "localhost")
    with secured(database, tmp_path) as (where, made):
        await connect_and_close(f"postgresql://{where}?sslmode=require")
        with pytest.raises(DatabaseUnavailable, match="certificate"):
            await connect(
                f"postgresql://{where}?sslmode=verify-full&sslrootcert={stranger}", "test"
            )
        named = where.replace("localhost", "127.0.0.1")
        with pytest.raises(DatabaseUnavailable, match="certificate"):
            await connect(f"postgresql://{named}?sslmode=verify-full&sslrootcert={made}", "test")
        with pytest.raises(DatabaseUnavailable, match="no encryption"):
            await connect(f"postgresql://{where}?sslmode=disable", "test")


async def test_a_server_without_tls_is_refused_where_the_url_requires_it(database: str) -> None:
    with front(database) as opened:
        where = f"{user(database)}@127.0.0.1:{opened.port}/{opened.database}"
        for mode in ("require", "verify-full&sslrootcert=system"):
            with pytest.raises(DatabaseUnavailable, match="SSL"):
                await connect(f"postgresql://{where}?sslmode={mode}", "test")
        await connect_and_close(f"postgresql://{where}?sslmode=prefer")


async def connect_and_close(url: str) -> None:
    await (await connect(url, "test")).close()
