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


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The port of a server that takes connections and never answers."""
    monkeypatch.setattr(urls, "CONNECT_SECONDS", 0.5)
    monkeypatch.setattr(hosts, "_silent", {})
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@pytest.mark.parametrize("wanted", ["any", "read-write", "primary", "prefer-standby"])
async def test_a_silent_server_keeps_nobody_from_the_next_one(
    database: str, silent: int, wanted: str
) -> None:
    with front(database) as opened:
        several = (
            f"postgresql://postgres@127.0.0.1:{silent},127.0.0.1:{opened.port}"
            f"{urlsplit(database).path}?sslmode=disable&target_session_attrs={wanted}"
        )
        async with Ledger.open(several, PROJECT) as ledger:
            await ledger.submit("parse")
        alone = await connect(several, "test")  # and at once: the silent one is asked last
        await alone.close()

    assert list(hosts._silent) == [("127.0.0.1", silent)]  # noqa: SLF001  what is remembered


async def test_when_no_server_fits_the_error_says_so(database: str, silent: int) -> None:
    with front(database) as opened:
        several = (
            f"postgresql://postgres@127.0.0.1:{silent},127.0.0.1:{opened.port}"
            f"{urlsplit(database).path}?sslmode=disable&target_session_attrs=standby"
        )
        with pytest.raises(DatabaseUnavailable, match=r"as target_session_attrs=standby asks$"):
            await connect(several, "test")
