"""The test kit in a user's own project: a real inner pytest with only the installed plugin."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ONE = ("-k", "a_lease_can_be_lost")
"""One story, where all would fail alike."""
STORY = """
import asyncio
from datetime import timedelta

import pytest

from runfold.ledger.errors import ConfigurationError, InvalidValue
from runfold.workers import Context, handler

calls = []


@handler("order")
async def order(ctx: Context, amount: int) -> str:
    await ctx.step("charge", calls.append, amount)
    await ctx.sleep(3_600)
    decision = await ctx.approval(f"send {amount}?")
    return decision.actor


def test_a_story_with_a_crash_a_sleep_and_an_approval(runfold):
    async def story(kit):
        run = await kit.ledger.submit("order", 5)
        kit.crash_after("charge")
        [asleep] = await kit.run_until_idle(order)
        assert calls == [5]
        assert (asleep.state, asleep.attempt_count) == ("pending", 1)
        await kit.move_time(timedelta(hours=2))
        [waiting] = await kit.run_until_idle(order)
        assert waiting.state == "waiting_approval"
        await kit.approve(run, actor="ann")
        assert await kit.run_until_idle(order) == []
        assert (await kit.ledger.get(run.run_id)).output == "ann"
        await kit.assert_history(run, [
            "run.submitted", "lease.acquired", "step.completed", "lease.expired", "lease.acquired",
              "step.completed",
            "lease.released", "lease.acquired", "approval.requested", "approval.granted",
              "lease.acquired", "run.completed",
        ])
        with pytest.raises(pytest.fail.Exception, match=r"\\+run.submitted"):
            await kit.assert_history(run, ["run.asked"])

    runfold.run(story)


@handler("report", cron="0 4 * * *")
async def report(ctx: Context) -> str:
    await ctx.sleep(5)
    return "sent"


def test_a_schedule_is_due_when_time_was_moved_past_it(runfold):
    async def story(kit):
        assert await kit.run_until_idle(report) == []
        for day in (1, 2):
            await kit.move_time(timedelta(days=1))
            [asleep] = await kit.run_until_idle(report)
            assert asleep.state == "pending"
            await kit.move_time(5)
            assert await kit.run_until_idle(report) == []
            assert [run.output for run in await kit.ledger.runs()] == ["sent"] * day

    runfold.run(story)


def test_runs_of_a_paused_kind_wait(runfold):
    async def story(kit):
        run = await kit.ledger.submit("report")
        await kit.ledger.pause_kind("report", actor="ann", reason="not today")
        [waiting] = await kit.run_until_idle(report)
        assert (waiting.run_id, waiting.state) == (run.run_id, "pending")

    runfold.run(story)


def test_a_lease_can_be_lost(runfold):
    async def story(kit):
        run = await kit.ledger.submit("order", 5)
        [lease] = await kit.ledger.claim("w1")
        lost = await kit.lose_lease(run)
        assert lost.state == "pending"
        with pytest.raises(InvalidValue, match="no lease to lose"):
            await kit.lose_lease(run)

    runfold.run(story)


def test_a_run_that_ends_while_another_loses_its_lease_has_refused_nobody(runfold, monkeypatch):
    async def story(kit):
        lost, other = [await kit.ledger.submit("order", 5) for _ in range(2)]
        leases = {lease.run_id: lease for lease in await kit.ledger.claim("w1", limit=2)}
        move = kit.move_time

        async def move_and_end(by):
            await move(by)
            await kit.ledger.complete(leases[other.run_id])

        monkeypatch.setattr(kit, "move_time", move_and_end)
        await kit.lose_lease(lost)
        await kit.assert_history(other, ["run.submitted", "lease.acquired", "run.completed"])

    runfold.run(story)


def test_a_crash_after_a_step_that_no_handler_has_is_an_error_that_names_it(runfold):
    async def story(kit):
        await kit.ledger.submit("order", 5)
        kit.crash_after("chrage")
        with pytest.raises(InvalidValue, match="chrage"):
            await kit.run_until_idle(order)

    runfold.run(story)


def test_the_clock_is_not_moved_in_production(runfold, monkeypatch):
    async def story(kit):
        monkeypatch.setenv("RUNFOLD_ENV", "production")
        with pytest.raises(ConfigurationError, match="production"):
            await kit.move_time(1)

    runfold.run(story)


def test_every_test_has_a_ledger_of_its_own(runfold):
    async def story(kit):
        assert await kit.ledger.runs() == []

    runfold.run(story)


def test_what_is_left_damaged_fails(runfold):
    async def story(kit):
        await kit.ledger.submit("order", 1)
        await kit.ledger.pool.execute("UPDATE ledger.run_state SET priority = 7")

    with pytest.raises(AssertionError, match="priority"):
        runfold.run(story)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A user's project, with the story of the documents beside its own."""
    page = (ROOT / "docs" / "howto" / "testing.md").read_text()
    (snippet,) = re.findall(r"```py\n(.*?)```", page, re.DOTALL)
    (tmp_path / "test_snippet.py").write_text(snippet)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "test_story.py").write_text(STORY)
    return tmp_path


def inner(project: Path, *more: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run pytest in the project."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("RUNFOLD_", "PYTEST"))
    }
    others = ("anyio", "asyncio", "cacheprovider", "hypothesispytest", "schemathesis", "xdist")
    words = [sys.executable, "-m", "pytest", "-q", *(f"-pno:{name}" for name in others), *more]
    return subprocess.run(
        words, cwd=project, env={**kept, **environment}, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_a_users_stories_and_that_of_the_documents_pass(project: Path) -> None:
    done = inner(project)

    assert "10 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.slow
def test_it_is_refused_in_production(project: Path) -> None:
    done = inner(project, *ONE, RUNFOLD_ENV="production")

    assert done.returncode != 0
    assert "refused where RUNFOLD_ENV=production" in done.stdout


@pytest.mark.slow
def test_a_server_that_cannot_be_reached_is_named(project: Path) -> None:
    done = inner(project, *ONE, RUNFOLD_TEST_URL="postgresql://u:secret@127.0.0.1:1/nowhere")

    assert "cannot use the database at postgresql://u:***@127.0.0.1:1/nowhere" in done.stdout
