"""The timeline: what it draws of a history, without a database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from runfold.console.web.pages.timeline import BUCKETS, Fact, timeline

START = datetime(2026, 1, 31, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def a_lost_lease() -> list[Fact]:
    """A worker that falls silent, the reaper that notices, and its late beat."""
    return [
        Fact(1, "run.submitted", at(0), "pending"),
        Fact(2, "lease.acquired", at(1), "running", attempt=1, worker_id="w:1", token=2,
             lease_until=at(11)),
        Fact(3, "lease.heartbeat", at(3), token=2, lease_until=at(13)),
        Fact(4, "lease.expired", at(20), "pending", error_code="E-RUN-001", compensates=2),
        Fact(5, "write.refused", at(21), name="heartbeat", token=2, worker_id="w:1"),
        Fact(6, "lease.acquired", at(22), "running", attempt=2, worker_id="w:2", token=6,
             lease_until=at(32)),
        Fact(7, "run.completed", at(30), "completed"),
    ]  # fmt: skip


def test_a_lost_lease_ends_when_it_ran_out_and_its_silence_is_drawn() -> None:
    drawn = timeline(a_lost_lease(), at(99))
    first, second = drawn.lanes[:2]
    assert (first.label, first.detail) == ("Attempt 1", "w:1")
    assert [bar.style for bar in first.bars] == ["expired", "lost", "gap"]
    unnoticed, lost, gap = first.bars
    assert round(lost.left + lost.width, 1) == round(unnoticed.left, 1)
    assert gap.title == "no heartbeat for 10.0 s"
    assert any("compensates #2" in mark.title for mark in first.marks)
    assert [bar.style for bar in second.bars][:1] == ["held"]
    assert "Refused writes" in [lane.label for lane in drawn.lanes]
    assert drawn.end < at(31)


def test_one_attempt_fills_the_window_when_it_is_chosen() -> None:
    drawn = timeline(a_lost_lease(), at(99), attempt=2)
    assert drawn.start > at(21)
    assert all(0 <= bar.left <= 100 for lane in drawn.lanes for bar in lane.bars)


def test_marks_that_are_too_near_are_drawn_as_one_that_counts_them() -> None:
    facts = [
        Fact(1, "run.submitted", at(0), "pending"),
        Fact(2, "lease.acquired", at(1), "running", attempt=1, worker_id="w", token=2,
             lease_until=at(61)),
        *(Fact(n, "lease.heartbeat", at(n / 10), token=2, lease_until=at(n)) for n in
          range(10, 20_000)),
    ]  # fmt: skip
    (attempt, _) = timeline(facts, at(2_000)).lanes
    assert len(attempt.marks) <= BUCKETS
    assert sum(mark.count for mark in attempt.marks) == 19_990


def test_a_long_wait_does_not_crowd_out_the_work() -> None:
    facts = [
        *a_lost_lease()[:-1],
        Fact(7, "approval.requested", at(30), "waiting_approval", name="sure"),
    ]
    assert timeline(facts, at(86_400)).end < at(60)
