"""Kinds are checked in pages, and what changes between two of them neither alarms nor hides."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from runfold.ledger import Ledger
from runfold.ledger.postgres.connections import Pool
from runfold.ledger.reading import kind_checks
from runfold.ledger.reading.kind_checks import check_kinds
from runfold.ledger.reading.snapshot import snapshot
from tests.support.databases import PROJECT
from tests.support.mallory import Mallory, mallory, open_ledger
from tests.support.snapshots import held_snapshots

__all__ = ["mallory", "open_ledger"]

_MARK = "SELECT ledger.move_low_water($1, ARRAY[$2], '0 s')"


async def test_what_changes_between_two_pages_neither_alarms_nor_hides(
    open_ledger: Ledger, mallory: Mallory, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"kind-{number}" for number in range(6)]
    await open_ledger.submit_many([{"kind": name, "key": name} for name in names])
    for name in names:
        await open_ledger.claim("worker", kinds=[name])
        await open_ledger.pool.execute(_MARK, PROJECT, name)
        await open_ledger.pause_kind(name)
        await open_ledger.limit_kind(name, 3)
        await open_ledger.resume_kind(name)
    held: list[int] = []
    changes = [*range(1, 9)]

    @asynccontextmanager
    async def after_changes(pool: Pool) -> AsyncIterator[Any]:
        held.append(await held_snapshots(open_ledger.pool))
        if changes:
            number = changes.pop(0)
            for name in names:
                await open_ledger.limit_kind(name, number)
            for name in (f"a-{number}", f"z-{number}"):  # before the page, and after it
                await open_ledger.pause_kind(name, ahead=True)
        async with snapshot(pool) as connection:
            yield connection

    monkeypatch.setattr(kind_checks, "_PAGE", 4)
    monkeypatch.setattr(kind_checks, "snapshot", after_changes)
    assert await check_kinds(open_ledger.pool, PROJECT) == []
    assert len(held) > 8  # pages
    assert set(held) == {0}

    changes += range(9, 17)
    await mallory.execute(
        "ALTER TABLE ledger.kind_event DISABLE TRIGGER ALL;"
        "UPDATE ledger.kind_state SET paused = true WHERE kind = 'kind-0';"
        "DELETE FROM ledger.kind_event WHERE kind = 'kind-1' AND number = 2;"
        "DELETE FROM ledger.kind_state WHERE kind = 'a-2';"
        "DELETE FROM ledger.kind_event WHERE kind = 'z-8';"
        "UPDATE ledger.low_water SET leases_after = 1000000, older_leases = '{}'"
        " WHERE kind = 'kind-4';"  # with which a page begins
        "ALTER TABLE ledger.kind_event ENABLE TRIGGER ALL"
    )
    details = sorted(one.detail for one in await check_kinds(open_ledger.pool, PROJECT))
    assert details == [
        "'a-2' has events, but no settings",
        "'kind-0' has settings that are not the fold of its events",
        "'kind-1' has settings that are not the fold of its events",
        "'z-8' has settings without an event",
        "lies before the low-water mark of 'kind-4': sweeps pass over it and 0 more",
    ]
