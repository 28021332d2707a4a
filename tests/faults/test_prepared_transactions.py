"""A prepared transaction holds its locks without a session: it is named where one would be."""

from __future__ import annotations

from collections.abc import Iterator

import asyncpg
import pytest

from runfold import Ledger
from runfold.ledger.errors import DatabaseUnavailable
from runfold.ledger.postgres import access_holes, schema
from runfold.ledger.postgres.embedded.postgres import temporary_postgres
from runfold.ledger.postgres.embedded.store import UNSAFE
from runfold.ledger.postgres.table_locks import lock_statement
from runfold.ledger.postgres.urls import driver_url
from tests.support.databases import PROJECT
from tests.support.logins import login_of, with_login
from tests.support.server import ROOM
from tests.support.server_folder import server_folder

GRANT = "SELECT ledger.change_access('test', $1, 'x', '{read}', NULL, NULL, NULL)"


@pytest.fixture
def server() -> Iterator[str]:
    """A server that lets transactions be prepared, as an application beside the ledger may need."""
    with temporary_postgres(
        ROOM | UNSAFE | {"max_prepared_transactions": "2"}, server_folder()
    ) as postgres:
        yield postgres.url()


@pytest.mark.slow
async def test_a_prepared_transaction_is_named_by_doctor_and_by_those_that_wait(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await schema.upgrade(server)
    async with (
        Ledger.open(server, PROJECT, create_project=True) as ledger,
        with_login(server, "runfold_worker", rights=("admin",)) as url,
    ):
        login = await asyncpg.connect(driver_url(url))
        await login.execute("BEGIN")
        await login.execute(GRANT.replace("$1", f"'{login_of(url)}'"))
        await login.execute("PREPARE TRANSACTION 'mine'")
        await login.close()

        with pytest.raises(DatabaseUnavailable) as refused:
            await ledger.pause_kind("parse", ahead=True)
        monkeypatch.setattr(access_holes, "IDLE_SECONDS", 0)
        holes = {
            hole.hole: (hole.remedy, hole.is_open)
            for hole in await access_holes.access_holes(ledger.pool)
        }
        [held] = [hole for hole in holes if "'mine'" in hole]
        [possible] = [hole for hole in holes if "lets 2 transactions be prepared" in hole]
        owner = await asyncpg.connect(server, server_settings={"lock_timeout": "300ms"})
        with pytest.raises(asyncpg.LockNotAvailableError) as upgrade:
            await owner.execute(lock_statement("EXCLUSIVE"))
        await owner.close()
        await ledger.pool.execute("ROLLBACK PREPARED 'mine'")
        await ledger.pause_kind("parse", ahead=True)

    assert f"prepared transaction 'mine' of login {login_of(url)}" == upgrade.value.hint
    end = "ROLLBACK PREPARED 'mine'"
    assert f"held by prepared transaction 'mine' of login {login_of(url)}" in str(refused.value)
    assert end in str(refused.value)
    assert login_of(url) in held
    assert holes[held] == (end, False)
    assert "max_prepared_transactions = 0" in holes[possible][0]
