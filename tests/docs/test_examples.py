"""The examples do what they say, on a real ledger."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from examples import agent, documents

from runfold.ledger import Ledger, State
from runfold.ledger.errors import DecisionRefused
from runfold.ledger.events import ApprovalRequested, ToolRequested
from tests.support.working import ended, reached, working

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


async def test_the_agent_uses_its_tools_and_asks_before_it_spends(ledger: Ledger) -> None:
    folder = ROOT / "ledger" / "sql"
    run = await ledger.submit(
        "agent", {"question": "How many lines of SQL?", "folder": str(folder)}
    )
    async with working(ledger, agent.agent):
        await reached(ledger, run, State.WAITING_APPROVAL)
        with pytest.raises(DecisionRefused):
            await ledger.approve(await ledger.get(run.run_id), actor=ledger.actor)
        await ledger.approve(await ledger.get(run.run_id), actor="ann", reason="worth it")
        finished = await ended(ledger, run)

    files = sorted(folder.rglob("*.sql"))
    lines = sum(len(path.read_text().splitlines()) for path in files)
    assert finished.output == {
        "text": f"{len(files)} files with {lines} lines",
        "model": "a script standing in for a model", "turns": 4,
    }  # fmt: skip
    assert finished.cost_usd == Decimal("0.20")
    history = await ledger.history(run.run_id)
    assert [event.name for event in history if isinstance(event, ToolRequested)] == [
        "list_files",
        "read_all",
        "count_lines",
    ]
    assert len([event for event in history if isinstance(event, ApprovalRequested)]) == 1


async def test_the_pipeline_has_a_child_for_each_document(ledger: Ledger) -> None:
    paths = sorted((ROOT / "docs").rglob("*.md"))
    run = await ledger.submit("collection", {"folder": str(ROOT / "docs")})
    async with working(ledger, documents.collection, documents.document):
        finished = await ended(ledger, run)

    assert finished.state == State.COMPLETED, (finished.error_code, finished.error_detail)
    assert finished.output["documents"] == len(paths)
    assert "run" in finished.output["frequent"]
    children = await ledger.runs(kind="document", limit=1_000)
    assert {child.state for child in children} == {State.COMPLETED}
    assert sorted(child.output["path"] for child in children) == [str(path) for path in paths]
    assert finished.attempt_count == 1


async def test_a_folder_without_documents_is_a_failure_that_says_so(
    ledger: Ledger, tmp_path: Path
) -> None:
    run = await ledger.submit("collection", {"folder": str(tmp_path)})
    async with working(ledger, documents.collection):
        finished = await ended(ledger, run)
    assert (finished.state, finished.error_code) == (State.FAILED, "E-EMPTY")
