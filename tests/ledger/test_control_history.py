"""What is ordered is one list without gaps, which nobody changes."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from runfold.ledger import Ledger, access
from runfold.ledger.control_history import control_history


async def test_every_change_of_control_is_in_a_chain_without_gaps(
    ledger: Ledger, connection: asyncpg.Connection[Any]
) -> None:
    await ledger.pause_kind("parse", actor="ann", reason="incident", ahead=True)
    await ledger.grant_role("finance", "ann", actor="bob")
    await ledger.schedule("nightly", "parse", cron="0 3 * * *", actor="cat")
    await access.grant(ledger.project, "w_login", ["work"], actor="bob")
    await access.revoke(ledger.project, "w_login", actor="bob", reason="left")
    await ledger.unschedule("nightly")

    events = await control_history(ledger.project)

    assert [(e.type, e.actor) for e in events][-8:] == [
        ("project.added", events[0].credential),
        ("kind.paused", "ann"),
        ("role.granted", "bob"),
        ("schedule.added", "cat"),
        ("access.added", "bob"),
        ("access.removed", "bob"),
        ("schedule.changed", ledger.actor),
        ("schedule.removed", ledger.actor),
    ]
    of_all = await control_history(ledger.project, everywhere=True)
    assert of_all[-1].subject == "list:test"
    for chain in (events, of_all):
        assert [e.number for e in chain] == list(range(1, len(chain) + 1))
    for statement in (
        "UPDATE ledger.control_event SET actor = 'x'",
        "DELETE FROM ledger.control_event",
    ):
        with pytest.raises(asyncpg.PostgresError, match="append-only"):
            await connection.execute(statement)


async def test_concurrent_changes_of_control_make_one_chain(ledger: Ledger) -> None:
    await asyncio.gather(
        *(ledger.grant_role("finance", f"member-{n}", actor="bob") for n in range(20))
    )

    every = await control_history(ledger.project)
    assert [e.number for e in every] == list(range(1, 22))
