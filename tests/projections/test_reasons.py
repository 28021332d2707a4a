"""Reasons: what a setting calls a secret is taken out of each before it is recorded."""

from __future__ import annotations

import pytest

from runfold.ledger import Ledger
from runfold.ledger.events import NoteAdded
from runfold.projections.declared.catch_up import CatchUp
from runfold.projections.declared.exchange import Order
from runfold.projections.declared.installing import install
from runfold.projections.declared.interventions import skip, skip_event
from runfold.projections.declared.refold import note_order
from runfold.projections.state.repair import repair
from tests.support.databases import PROJECT
from tests.support.projections import read, sizes

REASON = "tried with pin=1234"
RECORDED = """
SELECT reason FROM ledger.projection_skip UNION ALL SELECT reason FROM ledger.control_event
WHERE reason IS NOT NULL UNION ALL SELECT reason FROM ledger.archive_event
"""


async def test_a_secret_that_the_settings_name_is_in_no_recorded_reason(
    unverified_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNFOLD_REDACT_NAMES", "pin")
    async with Ledger.open(unverified_database, PROJECT) as ledger:
        run = (await ledger.submit("parse")).run_id
        await read(ledger, run, '"many"')
        await read(ledger, run, "4")
        await install(ledger.pool, sizes())
        await CatchUp(ledger.pool, sizes()).to_the_end()

        await skip(ledger.pool, "sizes", actor="ann", reason=REASON)
        await skip_event(ledger.pool, sizes(), run, 3, actor="ann", reason=REASON)
        await note_order(ledger.pool, sizes(), Order("ann", REASON))
        await ledger.archive.hold((PROJECT, run), reason=REASON)
        await ledger.pool.execute(
            "ALTER TABLE ledger.run_state DISABLE TRIGGER ALL;"
            " UPDATE ledger.run_state SET priority = 99"
        )
        await repair(ledger, [run], actor="ann", reason=REASON)

        reasons = [row["reason"] for row in await ledger.pool.fetch(RECORDED)]
        notes = [str(one.text) for one in await ledger.history(run) if isinstance(one, NoteAdded)]
    assert len(reasons) >= 4
    assert {reason.partition("=")[2] for reason in reasons} == {"[redacted]"}
    assert notes
    assert "1234" not in notes[0]
