"""What all duties share: one line when one is interrupted, one when it goes on, and jitter."""

from __future__ import annotations

from structlog.testing import capture_logs

from runfold.workers.duties.duty import JITTER, Duty, Interruption, jittered


class Idle(Duty):
    """A duty that has nothing to do."""

    async def tick(self) -> None:
        """Do nothing."""

    def pause(self) -> float:
        return 0.0


def test_an_interruption_and_its_end_are_logged_once_each_however_often_it_is_tried() -> None:
    now = [100.0]
    interruption = Interruption(Idle(project_id="p"), "lost", "found", lambda: now[0])

    with capture_logs() as logs:
        interruption.end()
        for reason in ("refused", "refused", "starting up"):
            interruption.begin(reason)
            now[0] += 2
        interruption.end(reaps_in_seconds=60)
        interruption.end()
        interruption.begin("refused")

    assert [(entry["event"], entry["log_level"]) for entry in logs] == [
        ("lost", "warning"),
        ("found", "warning"),
        ("lost", "warning"),
    ]
    assert (logs[0]["reason"], logs[0]["project_id"]) == ("refused", "p")
    assert (logs[1]["after_seconds"], logs[1]["reaps_in_seconds"]) == (6.0, 60)


def test_an_error_for_a_person_is_logged_once_for_each_reason_also_within_an_interruption() -> None:
    interruption = Interruption(Idle(), "lost", "found")

    with capture_logs() as logs:
        interruption.begin("refused")
        for reason in ("bad row 1", "bad row 1", "bad row 2"):
            interruption.begin_error("stopped", reason)
        interruption.end()

    assert [(entry["event"], entry.get("reason")) for entry in logs] == [
        ("lost", "refused"),
        ("stopped", "bad row 1"),
        ("stopped", "bad row 2"),
        ("found", None),
    ]


def test_a_pause_is_shortened_by_chance_and_never_lengthened() -> None:
    pauses = [jittered(10.0) for _ in range(1_000)]

    assert 10 * (1 - JITTER) <= min(pauses) < max(pauses) <= 10
