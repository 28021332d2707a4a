"""A URL of several servers: each has a time of its own, and the first that fits is taken."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from runfold.ledger import Ledger
from runfold.ledger.errors import DatabaseUnavailable
from runfold.ledger.postgres import hosts, urls
from runfold.ledger.postgres.connections import connect
from tests.support.databases import PROJECT
from tests.support.front import front

pytestmark = pytest.mark.slow


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The port of a server that takes connections and never answers."""
    monkeypatch.setattr(urls, "CONNECT_SECONDS", 1.0)  # for the other server, on a busy machine
    monkeypatch.setattr(hosts, "_silent", {})
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def of_both(database: str, silent: int, other: int, wanted: str) -> str:
    """Return the URL of both servers, the silent one first, with the login of the database's."""
    at = urlsplit(database)
    return (
        f"postgresql://{at.netloc.rpartition('@')[0]}@127.0.0.1:{silent},127.0.0.1:{other}"
        f"{at.path}?sslmode=disable&target_session_attrs={wanted}"
    )


@pytest.mark.parametrize("wanted", ["any", "read-write", "primary", "prefer-standby"])
async def test_a_silent_server_keeps_nobody_from_the_next_one(
    database: str, silent: int, wanted: str
) -> None:
    with front(database) as opened:
        several = of_both(database, silent, opened.port, wanted)
        async with Ledger.open(several, PROJECT) as ledger:
            await ledger.submit("parse")
        alone = await connect(several, "test")  # and at once: the silent one is asked last
        await alone.close()

    assert list(hosts._silent) == [("127.0.0.1", silent)]  # noqa: SLF001  what is remembered


async def test_when_no_server_fits_the_error_says_so(database: str, silent: int) -> None:
    with front(database) as opened:
        several = of_both(database, silent, opened.port, "standby")
        with pytest.raises(DatabaseUnavailable, match=r"as target_session_attrs=standby asks$"):
            await connect(several, "test")
