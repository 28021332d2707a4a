"""A trace of a history of which this code cannot read every event."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

from runfold.ledger.events import CATALOGUE, OpaqueEvent
from runfold.ledger.lifecycle import FIRST
from runfold.projections.telemetry.trace import spans

RUN = UUID(int=7)
START = datetime(2026, 1, 1, tzinfo=UTC)


def test_events_without_a_model_have_spans_like_all_others() -> None:
    types = [FIRST, *sorted(set(CATALOGUE) - {FIRST})]
    history = [
        OpaqueEvent(
            type=type_,
            schema_version=99,
            version=number,
            recorded_at=START + timedelta(seconds=number),
            facts={"parent": "no id", "token": 2} if number % 2 else {},
        )
        for number, type_ in enumerate(types, 1)
    ]

    found = spans(RUN, history)

    assert [span.name for span in found[:2]] == ["run", "queued"]
    assert found[0].link is None
    assert {"attempt 0", "step", "tool", "approval"} <= {span.name for span in found}
