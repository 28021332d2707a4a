"""The compiled fold: what is known when it is compiled is not asked of each row."""

from __future__ import annotations

from runfold.projections.state.compile import trigger_sql
from runfold.projections.state.run_state import COLUMNS


def test_the_fold_of_first_events_compares_no_row_with_names_of_types() -> None:
    first, _, later = trigger_sql(COLUMNS).partition("GET DIAGNOSTICS folded")

    assert first.count("event.type") == 1  # the condition by which the type is known
    assert " IN (" not in first
    assert " IN (" in later
