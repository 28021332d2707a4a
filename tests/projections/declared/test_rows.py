"""The rows of a projection, and events that count once for each member of an array."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import asyncpg
import pytest

from runfold.ledger import Ledger
from runfold.ledger.errors import InvalidValue
from runfold.ledger.events import Event
from runfold.projections import (
    CatchUp,
    Projection,
    ProjectionNotFound,
    count,
    each,
    install,
    last,
    of_run,
    refold,
    rows,
)
from runfold.projections.declared.installing import install_on
from tests.support.projections import read, sizes
from tests.support.waiting import awaited

TAGGED = Projection(
    "tagged",
    key={"tag": each(of_run("tags")), "kind": of_run("kind")},
    columns={"runs": count({"run.submitted"}), "newest": last("recorded_at")},
)


async def taken(ledger: Ledger, projection: Projection) -> None:
    """Install the projection and take every event."""
    await install(ledger.pool, projection)
    await CatchUp(ledger.pool, projection).to_the_end()


async def test_an_event_counts_once_for_each_member_of_an_array(ledger: Ledger) -> None:
    for tags in (["a", "b"], ["b"], []):
        await ledger.submit("parse", tags=tags)
    await taken(ledger, TAGGED)
    assert [(row["tag"], row["runs"]) for row in await rows(ledger.pool, "tagged")] == [
        ("a", 1),
        ("b", 2),
    ]

    await ledger.submit("parse", tags=["a"])
    assert (await refold(ledger.pool, TAGGED)).wrong == 0
    assert [row["runs"] for row in await rows(ledger.pool, "tagged")] == [2, 2]


def test_each_belongs_into_a_key_once_and_is_of_an_array() -> None:
    with pytest.raises(InvalidValue, match="no array"):
        each("kind")
    with pytest.raises(InvalidValue, match="more than one `each`"):
        Projection("t", key={"a": each("tags"), "b": each(of_run("tags"))}, columns={"n": count()})
    with pytest.raises(InvalidValue, match="belongs into the key"):
        Projection("t", key={"kind": of_run("kind")}, columns={"n": last(each("tags"))})


async def test_the_rows_of_a_projection_are_read_in_the_order_of_its_key(ledger: Ledger) -> None:
    for kind in ("parse", "mail", "call"):
        await read(ledger, (await ledger.submit(kind)).run_id, "2")
    await taken(ledger, sizes())

    assert [row["kind"] for row in await rows(ledger.pool, "sizes")] == ["call", "mail", "parse"]
    assert [row["kind"] for row in await rows(ledger.pool, "sizes", limit=1)] == ["call"]
    assert await rows(ledger.pool, "sizes", where={"kind": "mail", "reads": "1"}) == [
        {"kind": "mail", "reads": 1, "size": 2}
    ]
    assert await rows(ledger.pool, "sizes", where={"kind": "'; DROP TABLE ledger.event; --"}) == []


async def test_rows_are_read_though_the_projection_changes_meanwhile(
    ledger: Ledger, connection: asyncpg.Connection[Any]
) -> None:
    await read(ledger, (await ledger.submit("parse")).run_id, "2")
    await taken(ledger, sizes())
    newer = sizes(2, key={"run_kind": of_run("kind")})
    async with connection.transaction():
        await connection.execute("SELECT ledger.drop_projection_tables('sizes', true)")
        await install_on(connection, newer)
        reading = asyncio.create_task(rows(ledger.pool, "sizes"))
        await awaited(connection)
    assert await reading == []

    async with connection.transaction():
        await connection.execute("SELECT ledger.drop_projection_tables('sizes', true)")
        reading = asyncio.create_task(rows(ledger.pool, "sizes"))
        await awaited(connection)
    with pytest.raises(ProjectionNotFound):
        await reading


async def test_what_has_no_rows_is_refused_by_name(ledger: Ledger) -> None:
    async def apply(connection: Any, events: Sequence[Event]) -> None: ...

    await install(ledger.pool, Projection("outbox", apply=apply))
    await install(ledger.pool, sizes())
    with pytest.raises(InvalidValue, match="no rows of its own"):
        await rows(ledger.pool, "outbox")
    with pytest.raises(InvalidValue, match="has kind, reads, size"):
        await rows(ledger.pool, "sizes", where={'kind" = kind OR "kind': "x"})
    with pytest.raises(ProjectionNotFound):
        await rows(ledger.pool, "sizes'")
