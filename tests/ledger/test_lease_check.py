"""What a check says of events that were not written under the lease of their run."""

from __future__ import annotations

from typing import Any

import pytest

from runfold.ledger.proof.leases import LeaseCheck

HELD = [
    ("run.submitted", None, None),
    ("lease.acquired", 2, "w1"),
    ("lease.heartbeat", 2, None),
    ("tool.requested", 2, "w1"),
    ("step.completed", 2, None),
    ("lease.expired", None, None),
    ("write.refused", 2, "w1"),
    ("note.added", None, None),
    ("lease.acquired", 9, "w2"),
]


def problems(events: list[tuple[str, int | None, str | None]]) -> list[str | None]:
    """Return what a check says of each event of a run."""
    check = LeaseCheck()
    rows: list[dict[str, Any]] = [
        {"version": number, "type": type_, "token": token, "worker_id": worker}
        for number, (type_, token, worker) in enumerate(events, 1)
    ]
    return [check.problem(row) for row in rows]


def test_what_was_written_under_its_lease_is_right() -> None:
    assert problems(HELD) == [None] * len(HELD)


@pytest.mark.parametrize(
    ("event", "problem"),
    [
        (("lease.acquired", 9, "w3"), "token 9 is not its version"),
        (("lease.heartbeat", 2, None), "it was written under token 2, and the lease was 9"),
        (("step.completed", None, None), "it has no token of a lease"),
        (("tool.requested", 9, "w1"), "it names worker w1, and w2 held the lease"),
        (("acme.page_read", 2, None), "it was written under token 2, and the lease was 9"),
    ],
)
def test_what_was_not_is_named(event: tuple[str, int | None, str | None], problem: str) -> None:
    assert problems([*HELD, event])[-1] == problem


def test_nothing_is_written_under_a_lease_that_is_gone() -> None:
    late = [*HELD[:6], ("acme.page_read", 2, None)]

    assert problems(late)[-1] == "it was written under token 2, and the lease was none"
