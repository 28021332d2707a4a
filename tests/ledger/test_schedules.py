"""Schedules: one run for each due time, whoever asks, and what becomes of missed ones."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from structlog.testing import capture_logs

from runfold.ledger import Ledger, names, schedules
from runfold.ledger.cron import latest_due, next_due
from runfold.ledger.errors import AccessDenied, DuplicateKey, InvalidValue, ScheduleNotFound
from runfold.ledger.events import NoteAdded
from runfold.ledger.payload import Unreadable
from runfold.ledger.postgres import connections
from runfold.workers import Context, handler
from runfold.workers.duties.duty import RETRY_SECONDS
from runfold.workers.duties.scheduler import LEAST_SECONDS, Scheduler
from tests.support.databases import PROJECT
from tests.support.logins import grant, login_of, with_login


async def overdue(ledger: Ledger, minutes: int) -> None:
    """Move every schedule back, as if nobody had looked for so long."""
    await ledger.pool.execute(
        "UPDATE ledger.schedule SET next_at = next_at - make_interval(mins => $1)", minutes
    )


async def test_any_number_of_schedulers_submit_a_due_time_once_and_of_missed_times_the_latest(
    ledger: Ledger,
) -> None:
    made = await ledger.schedule(
        "sweep", "clean", {"deep": True}, cron="* * * * *", actor="ann", ahead=True
    )
    await overdue(ledger, 60)

    await asyncio.gather(*(Scheduler(ledger).tick() for _ in range(5)))
    runs = await ledger.runs()
    (after,) = await ledger.schedules()

    assert len({run.key for run in runs}) == len(runs) <= 2  # two when a minute passed meanwhile
    assert {(run.kind, run.input["deep"]) for run in runs} == {("clean", True)}
    assert after.last_due is not None
    assert runs[0].key == f"schedule:sweep:{after.last_due:%Y-%m-%dT%H:%MZ}" or len(runs) == 2
    assert after.next_at >= made.next_at


async def test_a_crash_after_the_submission_repeats_no_run(ledger: Ledger) -> None:
    await ledger.schedule("sweep", "clean", cron="0 0 1 1 *", ahead=True)
    await overdue(ledger, 60 * 24 * 366)
    await Scheduler(ledger).tick()
    await overdue(ledger, 60 * 24 * 366)

    await Scheduler(ledger).tick()

    assert len(await ledger.runs()) == 1


async def test_a_handler_with_a_cron_is_declared_and_again_unchanged_it_keeps_what_is_due(
    ledger: Ledger,
) -> None:
    @handler("nightly", cron="30 2 * * *", timezone="Europe/Berlin")
    async def nightly(_ctx: Context) -> None:
        pass

    await Scheduler(ledger, [nightly]).tick()
    await overdue(ledger, 10)
    (before,) = await ledger.schedules()
    again = await ledger.schedule(
        "nightly", "nightly", cron="30 2 * * *", timezone="Europe/Berlin", ahead=True
    )
    changed = await ledger.schedule(
        "nightly", "nightly", cron="31 2 * * *", timezone="Europe/Berlin"
    )

    assert (before.name, before.kind, before.timezone) == ("nightly", "nightly", "Europe/Berlin")
    assert again.next_at == before.next_at
    assert changed.next_at > before.next_at
    assert await ledger.unschedule("nightly")
    assert not await ledger.unschedule("nightly")
    assert await ledger.schedules() == []


async def test_a_schedule_of_one_name_in_another_project_stays_when_this_one_changes(
    ledger: Ledger, database: str
) -> None:
    async with Ledger.open(database, "other", create_project=True) as other:
        for each in (ledger, other):
            await each.schedule("nightly", "nightly", cron="30 2 * * *", ahead=True)
        await overdue(ledger, 10)
        before = await other.schedules()

        await Scheduler(ledger).tick()
        await ledger.pause_schedule("nightly", reason="a holiday")
        await ledger.unschedule("nightly")

        assert await other.schedules() == before
        assert await other.runs() == []


NO_SCHEDULES: tuple[tuple[Any, Any], ...] = (
    ("", "UTC"), ("* * * *", "UTC"), ("* * * * * *", "UTC"), ("61 * * * *", "UTC"),
    ("0 0 31 2 *", "UTC"), ("@daily", "UTC"), (5, "UTC"), ("* * * * *", "Mars/Base"),
    ("* * * * *", "../etc/passwd"), ("* * * * *", None), ("* * * * *", "localtime"),
)  # fmt: skip


async def test_what_is_no_cron_or_time_zone_is_refused_in_words(
    ledger: Ledger, subtests: pytest.Subtests
) -> None:
    for cron, timezone in NO_SCHEDULES:
        with subtests.test(cron=cron, timezone=timezone):
            with pytest.raises(InvalidValue, match=r"cron|timezone"):
                await ledger.schedule("sweep", "clean", cron=cron, timezone=timezone, ahead=True)
            with pytest.raises(InvalidValue, match=r"cron|timezone"):
                handler("clean", cron=cron, timezone=timezone)

            assert await ledger.schedules() == []


def scheduler_of(ledger: Ledger, cron: str, release: datetime | None) -> Scheduler:
    """Return the scheduler of a release that declares the kind nightly."""

    @handler("nightly", cron=cron)
    async def nightly(_ctx: Context) -> None:
        pass

    return Scheduler(ledger, [nightly], release=release)


CHANGED_AT = datetime.fromtimestamp(Path(__file__).stat().st_mtime, UTC)
OLDER, NEWER = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 2, tzinfo=UTC)


async def test_an_older_release_does_not_put_its_own_expression_back(ledger: Ledger) -> None:
    await scheduler_of(ledger, "0 3 * * *", OLDER).tick()
    await scheduler_of(ledger, "0 4 * * *", NEWER).tick()
    (newest,) = await ledger.schedules()

    with capture_logs() as logs:
        restarted = scheduler_of(ledger, "0 3 * * *", OLDER)
        await restarted.tick()
        await restarted.tick()

    assert await ledger.schedules() == [newest]
    assert (newest.cron, newest.release) == ("0 4 * * *", NEWER)
    [line] = [entry for entry in logs if entry["event"] == names.SCHEDULE_KEPT]
    assert (line["name"], line["cron"], line["declared"]) == ("nightly", "0 4 * * *", "0 3 * * *")
    await overdue(ledger, 60 * 24)
    await restarted.tick()
    assert len(await ledger.runs()) == 1  # it has the handler, and keeps the newest expression


async def test_a_schedule_whose_handler_is_gone_is_paused_and_named_until_it_is_back(
    ledger: Ledger,
) -> None:
    await scheduler_of(ledger, "0 3 * * *", OLDER).tick()
    await ledger.schedule("sweep", "clean", cron="0 3 * * *", ahead=True)
    await overdue(ledger, 60 * 24 * 3)

    with capture_logs() as logs:
        without = Scheduler(ledger)
        for _ in range(3):
            await without.tick()

    assert [run.kind for run in await ledger.runs()] == ["clean"]
    assert without.pause() > 1
    [line] = [entry for entry in logs if entry["event"] == names.SCHEDULE_ORPHANED]
    assert (line["name"], line["kind"]) == ("nightly", "nightly")
    await scheduler_of(ledger, "0 3 * * *", OLDER).tick()
    assert {run.kind for run in await ledger.runs()} == {"clean", "nightly"}


async def test_a_change_by_hand_lasts_until_the_next_release(ledger: Ledger) -> None:
    await scheduler_of(ledger, "0 3 * * *", OLDER).tick()
    await ledger.schedule("nightly", "nightly", cron="0 5 * * *", actor="ann", ahead=True)

    await scheduler_of(ledger, "0 3 * * *", OLDER).tick()
    (by_hand,) = await ledger.schedules()
    await scheduler_of(ledger, "0 4 * * *", datetime.now(UTC)).tick()
    (released,) = await ledger.schedules()

    assert (by_hand.cron, by_hand.release, by_hand.actor) == ("0 5 * * *", None, "ann")
    assert (released.cron, released.release is None) == ("0 4 * * *", False)


async def test_a_release_from_the_future_counts_as_now(ledger: Ledger) -> None:
    await scheduler_of(ledger, "0 3 * * *", datetime.now(UTC) + timedelta(days=9)).tick()
    await scheduler_of(ledger, "0 4 * * *", datetime.now(UTC)).tick()

    (schedule,) = await ledger.schedules()
    assert schedule.cron == "0 4 * * *"


async def test_the_release_is_the_time_of_the_handlers_file_unless_it_is_set(
    ledger: Ledger,
) -> None:

    await scheduler_of(ledger, "0 3 * * *", None).tick()
    (by_file,) = await ledger.schedules()
    at = datetime.now(UTC)
    ledger.settings = ledger.settings.model_copy(update={"release": at})
    await scheduler_of(ledger, "0 3 * * *", None).tick()
    (by_setting,) = await ledger.schedules()

    assert (by_file.release, by_setting.release) == (CHANGED_AT, at)


async def test_a_schedule_that_is_refused_holds_no_other_up_and_is_not_asked_for_without_end(
    ledger: Ledger, connection: asyncpg.Connection
) -> None:
    await ledger.schedule("bad", "clean", cron="* * * * *", ahead=True)
    await ledger.schedule("good", "clean", cron="* * * * *", ahead=True)
    await connection.execute(
        "UPDATE ledger.schedule SET next_at = ledger.now() - interval '1 minute'"
    )
    await connection.execute(
        "UPDATE ledger.schedule SET timezone = 'Mars/Olympus' WHERE name = 'bad'"
    )

    scheduler = Scheduler(ledger)
    await scheduler.tick()

    assert len(await ledger.runs()) == 1
    assert scheduler.pause() >= RETRY_SECONDS


async def test_the_next_due_time_wakes_the_scheduler(ledger: Ledger) -> None:
    await ledger.schedule("sweep", "clean", cron="0 0 1 1 *", ahead=True)
    await ledger.pool.execute(
        "UPDATE ledger.schedule SET next_at = ledger.now() + interval '1 hour'"
    )
    scheduler = Scheduler(ledger)

    await scheduler.tick()

    assert LEAST_SECONDS <= scheduler.pause() <= 3_600


def test_the_clock_may_change_and_each_day_is_due_once() -> None:
    berlin, at = "Europe/Berlin", "30 2 * * *"
    spring, days = datetime(2026, 3, 27, 12, tzinfo=UTC), []
    for _ in range(3):
        spring = next_due(at, berlin, spring)
        days.append(spring)
    autumn, more = datetime(2026, 10, 23, 12, tzinfo=UTC), []
    for _ in range(3):
        autumn = next_due(at, berlin, autumn)
        more.append(autumn)

    assert [moment.day for moment in days] == [28, 29, 30]
    assert [moment.day for moment in more] == [24, 25, 26]
    twice = [datetime(2026, 10, 25, 0, 30, tzinfo=UTC), datetime(2026, 10, 25, 1, 30, tzinfo=UTC)]
    for minute in range(60):
        within = datetime(2026, 10, 25, 1, minute, tzinfo=UTC)
        assert next_due(at, berlin, within) > within
        assert latest_due(at, berlin, within) in twice
    assert latest_due("*/5 * * * *", "UTC", datetime(2026, 1, 1, 0, 5, tzinfo=UTC)) == datetime(
        2026, 1, 1, 0, 5, tzinfo=UTC
    )
    assert latest_due("*/5 * * * *", "UTC", datetime(2026, 1, 1, 0, 4, 59, tzinfo=UTC)) == datetime(
        2026, 1, 1, tzinfo=UTC
    )


async def test_a_schedule_whose_input_cannot_be_read_holds_no_other_up(ledger: Ledger) -> None:
    await ledger.schedule("broken", "clean", cron="* * * * *", ahead=True)
    await ledger.schedule("sound", "clean", cron="* * * * *", ahead=True)
    await ledger.pool.execute(
        "UPDATE ledger.schedule SET input = '{\"input\": ' || repeat('[', 3000)"
        " WHERE name = 'broken'"
    )
    await overdue(ledger, 60)

    await Scheduler(ledger).tick()

    runs = await ledger.runs()
    assert {str(run.key).split(":")[1] for run in runs} == {"sound"}
    broken, _ = await ledger.schedules()
    assert isinstance(broken.input, Unreadable)


async def test_a_change_of_a_schedule_has_a_reason_and_a_schedule_in_sql_as_in_python(
    ledger: Ledger,
) -> None:
    await ledger.schedule("nightly", "clean", cron="0 3 * * *", ahead=True)
    change = "SELECT ledger.change_schedule('test', 'ann', $1, 'pause', NULL, $2)"

    with pytest.raises(InvalidValue, match="reason"):
        await ledger.pause_schedule("nightly", reason=" ")
    with pytest.raises(asyncpg.InvalidParameterValueError, match="p_reason must be given"):
        await ledger.pool.fetchval(change, "nightly", " ")
    with pytest.raises(ScheduleNotFound, match="nightly"):
        await ledger.pause_schedule("nigthly", reason="over")
    assert await ledger.pool.fetchval(change, "nigthly", "over") is False
    [kept] = await ledger.schedules()
    assert not kept.is_paused

    resume = "SELECT ledger.change_schedule('test', 'bob', $1, 'resume', now(), 'who knows')"
    assert await ledger.pool.fetchval(resume, "nightly"), "there is one"
    assert await ledger.schedules() == [kept], "one that is not paused is not moved"


async def test_a_schedule_moves_on_only_from_what_was_seen_of_it(
    ledger: Ledger, subtests: pytest.Subtests
) -> None:
    made = await ledger.schedule("nightly", "clean", cron="0 3 * * *", ahead=True)
    later = made.next_at + timedelta(days=1)
    advance = "SELECT ledger.advance_schedule('test', 'nightly', $1, $2, $3, $4)"
    seen = (made.updated_at, made.next_at)
    for place, other in enumerate((later, later)):
        with subtests.test(f"{other}"):
            old = (*seen[:place], other, *seen[place + 1 :])
            assert not await ledger.pool.fetchval(advance, *old, later, made.next_at)
            assert await ledger.schedules() == [made]

    assert await ledger.pool.fetchval(advance, *seen, later, made.next_at)
    [moved] = await ledger.schedules()
    assert (moved.next_at, moved.last_due) == (later, made.next_at)


async def test_a_schedule_that_is_changed_after_it_was_read_submits_nothing_by_what_was_read(
    ledger: Ledger, subtests: pytest.Subtests
) -> None:
    """Whoever read it may have been frozen for an hour meanwhile."""

    async def pause() -> None:
        await ledger.pause_schedule("nightly", reason="inventory")

    async def replace() -> None:
        await ledger.schedule("nightly", "clean", {"deep": True}, cron="0 3 * * *", ahead=True)

    async def remove() -> None:
        await ledger.unschedule("nightly")

    for change in (pause, replace, remove):
        with subtests.test(change.__name__):
            await ledger.schedule("nightly", "clean", cron="0 3 * * *", ahead=True)
            await overdue(ledger, 60 * 24)
            [due], now = await schedules.due(ledger.project, [])

            await change()
            await schedules.submit_due(ledger.project, due, now)

            assert await ledger.runs() == []
            await ledger.unschedule("nightly")


async def test_nobody_else_takes_the_key_of_a_due_time(
    ledger: Ledger, database: str, connection: asyncpg.Connection[Any]
) -> None:
    """The schedule would move on as if its run had been submitted."""
    run = await ledger.submit("clean")
    key = "schedule:nightly:2030-01-01T03:00Z"
    async with (
        with_login(database, "runfold_worker", rights=["submit"]) as url,
        Ledger.open(url, PROJECT) as own,
    ):
        for taking in (
            lambda: own.submit("other", key=key),
            lambda: own.submit_many([{"kind": "other", "key": key}]),
            lambda: own.append(run.run_id, NoteAdded(text="x"), key=key),
            lambda: own.signal(run.run_id, "x", key=key),
        ):
            with pytest.raises(AccessDenied, match="a key that begins with schedule: takes"):
                await taking()
        await grant(connection, login_of(url), ["submit", "schedule"])
        assert (await own.submit("clean", key=key)).key == key


async def test_a_schedule_that_is_removed_just_before_its_order_submits_nothing(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ledger.schedule("nightly", "clean", cron="0 3 * * *", ahead=True)

    async def removed_meanwhile(_: object) -> datetime:
        await ledger.unschedule("nightly")
        return datetime.now(UTC)

    monkeypatch.setattr(schedules, "ledger_now", removed_meanwhile)
    with pytest.raises(ScheduleNotFound, match="nightly"):
        await ledger.run_schedule("nightly", reason="now")
    assert await ledger.runs() == []


async def test_a_schedule_that_is_removed_as_it_is_made_is_not_found(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch = connections.fetch

    async def removed_meanwhile(source: Any, sql: str, *given: Any) -> Any:
        rows = await fetch(source, sql, *given)
        if "put_schedule" in sql:
            await ledger.unschedule("nightly")
        return rows

    monkeypatch.setattr("runfold.ledger.schedules.fetch", removed_meanwhile)
    with pytest.raises(ScheduleNotFound, match="nightly"):
        await ledger.schedule("nightly", "clean", cron="0 3 * * *", ahead=True)


async def test_an_order_that_is_refused_its_run_is_not_on_record(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ledger.schedule("nightly", "clean", cron="0 3 * * *", ahead=True)
    second = datetime(2026, 5, 1, 12, 30, 7, tzinfo=UTC)
    await ledger.submit("other", key="schedule:nightly:now:2026-05-01T12:30:07Z")

    async def that_second(_: object) -> datetime:
        return second

    monkeypatch.setattr(schedules, "ledger_now", that_second)
    with pytest.raises(DuplicateKey):
        await ledger.run_schedule("nightly", reason="now")
    assert "schedule.run" not in {event.type for event in await ledger.control_history()}


async def test_a_handler_takes_no_schedule_of_another_kind(ledger: Ledger) -> None:
    await ledger.schedule("nightly", "clean", cron="0 5 * * *", actor="ann", ahead=True)
    (by_hand,) = await ledger.schedules()

    with capture_logs() as logs:
        await scheduler_of(ledger, "0 4 * * *", datetime.now(UTC)).tick()

    assert await ledger.schedules() == [by_hand]
    [line] = [entry for entry in logs if entry["event"] == names.SCHEDULE_KEPT]
    assert "another name" in line["remedy"]
