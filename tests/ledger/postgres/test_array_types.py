"""Array types: a new connection knows those of the ledger's statements."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from runfold.ledger import Ledger, State, Submit, Transition
from runfold.ledger.events import NoteAdded
from runfold.ledger.postgres import array_types
from tests.support.databases import PROJECT


async def test_they_are_those_of_the_server(connection: asyncpg.Connection) -> None:
    rows = await connection.fetch(
        "SELECT oid::int AS oid, typname AS name, typelem::int AS elemtype,"
        " format_type(typelem, NULL) AS element, typcategory::text AS category, typdelim::text"
        " FROM pg_type WHERE oid = ANY ($1::oid[])",
        [told["oid"] for told in array_types.TYPES],
    )
    assert {(row["oid"], row["name"], row["elemtype"]) for row in rows} == {
        (told["oid"], told["name"], told["elemtype"]) for told in array_types.TYPES
    }
    assert {row["category"] for row in rows} == {"A"}


async def test_a_worker_asks_the_server_about_no_type(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(_: asyncpg.Connection, types: Any, within: float | None) -> None:
        raise AssertionError(f"the driver asks about the types {types}")

    async with Ledger.open(database, PROJECT) as ledger:
        with monkeypatch.context() as patched:  # those who check the database afterwards may ask
            patched.setattr(asyncpg.Connection, "_introspect_types", refuse)
            await ledger.submit_many([Submit(kind="parse", key="a"), Submit(kind="parse")])
            run = await ledger.submit("parse", tags=["t"])
            leases = await ledger.claim("w:1", limit=3)
            leases = [*leases, *await ledger.claim("w:1")]
            await ledger.heartbeat(leases)
            await ledger.append(leases[0], NoteAdded(text="x"))
            await ledger.transition_many([Transition(lease, State.COMPLETED) for lease in leases])
            await ledger.reap()
            assert (await ledger.get(run.run_id)).state == "completed"
            assert [event.type for event in await ledger.history(run.run_id)]
            assert await ledger.runs()
