"""What the demo tells in the end, on terminals of any width."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from runfold.console.demo.outcome import Outcome, read_outcome
from runfold.console.demo.report import print_outcome
from runfold.ledger import Ledger
from tests.support.runs import claimed
from tests.support.waiting import lapsed


@pytest.mark.parametrize("width", [80, 40])
async def test_the_demo_tells_every_word_on_a_narrow_terminal(ledger: Ledger, width: int) -> None:
    first = await claimed(ledger, "w:killed", input={"path": "a/module/of/the/library.py"})
    await ledger.retry(
        first, error_code="E-DEMO", error_detail="the quick brown fox jumps over the lazy dog"
    )
    [second] = await ledger.claim("worker-2")
    await ledger.complete(second, output={"lines": 1234, "functions": 56, "classes": 7})
    outcome = Outcome("demo-1a2b", 1, {"completed": 1}, "worker-2", 4711)
    outcome.history = await ledger.history(first.run_id)
    outcome.report = await ledger.verify()

    narrow, wide = told(outcome, width), told(outcome, 1_000)

    assert "".join(narrow.split()) == "".join(wide.split())
    history = narrow[narrow.index("library.py") : narrow.index("worker-2 (pid")]
    assert max(len(line) for line in history.splitlines()) <= width
    assert {*wide.split()} == {*narrow.split()}  # no word was broken


def test_a_demo_whose_runs_ended_before_a_worker_was_killed_says_so() -> None:
    outcome = Outcome("demo-1a2b", 1, {"completed": 1})

    assert "no worker was killed" in outcome.problems()[0]


@pytest.mark.parametrize("attempts", [1, 2])
async def test_a_demo_expects_the_attempts_that_lost_leases_were_charged_as(
    ledger: Ledger, attempts: int
) -> None:
    lease = await claimed(ledger, "worker-1", ttl=1)
    if attempts == 2:  # the first was begun
        await ledger.ask_tool(lease, "wc")
    await lapsed(ledger, lease)
    await ledger.reap()
    [again] = await ledger.claim("worker-2")
    await ledger.complete(again)
    outcome = Outcome(ledger.project_id, 1, killed="worker-1")
    await read_outcome(ledger, outcome)

    assert [run.attempt_count for run in outcome.lost] == [attempts]
    assert not [problem for problem in outcome.problems() if "attempt" in problem]


def told(outcome: Outcome, width: int) -> str:
    """Return what the demo prints on a terminal of a width."""
    written = io.StringIO()
    console = Console(file=written, width=width, force_terminal=True, color_system=None)
    print_outcome(outcome, console)
    return written.getvalue()
