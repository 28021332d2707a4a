"""What long-running commands say when they start: a hole in access is one line of the log."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

import pytest

from runfold.console.cli.commands import projections, worker
from runfold.console.web import serving
from runfold.workers.duties.reaper import Reaper
from tests.support.console import Cli, execute

COMMANDS: Final = (
    ("worker", "tests.support.handlers"),
    ("reap",),
    ("serve", "--port", "0"),
    ("projections", "run"),
)
LINE: Final = "access_holes"


@pytest.fixture
def brief(
    unverified_database: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Cli:
    """The program, whose duties end as soon as they have begun."""

    async def opened(opening: Callable[[], AbstractAsyncContextManager[Any]], *_: Any) -> bool:
        async with opening():
            return True

    async def ended(*_: Any) -> None:
        pass

    class Never:
        def within(self, *_: Any) -> None:
            pass

    monkeypatch.setattr(worker, "serve", opened)
    monkeypatch.setattr(worker, "LastResort", Never)
    monkeypatch.setattr(Reaper, "run", ended)
    monkeypatch.setattr(serving.Server, "serve", ended)
    monkeypatch.setattr(projections, "_together", ended)
    return Cli(unverified_database, capsys)


def test_every_duty_says_at_its_start_that_a_hole_is_open(
    brief: Cli, subtests: pytest.Subtests
) -> None:
    for words in COMMANDS:
        with subtests.test(" ".join(words)):
            assert LINE not in brief.ok(*words).err
    execute(brief.url, "ALTER TABLE ledger.run_state DISABLE ROW LEVEL SECURITY")
    execute(brief.url, "ALTER TABLE ledger.payload ENABLE REPLICA TRIGGER refuse_change")
    for words in COMMANDS:
        with subtests.test(" ".join((*words, "with holes"))):
            [line] = [one for one in brief.ok(*words).err.splitlines() if LINE in one]
            assert "run `runfold doctor`" in line
            assert "row security of ledger.run_state is off" in line
            assert "holes=2" in line


def test_in_production_the_owners_login_is_a_hole(
    brief: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNFOLD_ENV", "production")

    said = brief.ok("reap").err

    assert "this process logs in as postgres" in said
