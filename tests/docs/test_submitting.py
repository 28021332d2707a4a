"""The programs of the page about submitting do what it says, each on a real ledger."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from runfold.ledger import Ledger
from tests.support import forked
from tests.support.databases import PROJECT

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "submit.md"
IN_A_THREAD, IN_A_TRANSACTION = re.findall(r"```py\n(.*?)```", PAGE.read_text(), re.DOTALL)


def printed_by(program: str, database: str) -> str:
    """Run a program to its end, and return what it printed; every warning is an error."""
    environment = {**os.environ, "RUNFOLD_URL": database, "RUNFOLD_PROJECT": PROJECT}
    done = forked.run(
        [sys.executable, "-W", "error", "-c", program],
        env=environment | {"DATABASE_URL": database},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


async def test_a_program_without_a_loop_submits_once(ledger: Ledger, database: str) -> None:
    for _ in "12":
        assert printed_by(IN_A_THREAD, database) == "pending\n"

    [run] = await ledger.runs(kind="report")
    assert (run.input, run.key) == ({"month": "2026-11"}, "report-2026-11")


async def test_a_run_commits_with_the_rows_of_another_driver_or_not_at_all(
    ledger: Ledger, database: str, connection: asyncpg.Connection[Any]
) -> None:
    program = IN_A_TRANSACTION.replace("'default'", f"'{PROJECT}'")
    printed_by(program, database)

    [run] = await ledger.runs(kind="invoice")
    assert (run.input, run.key) == ({"number": 17}, "invoice-17")
    assert [event.actor for event in await ledger.history(run.run_id)] == ["web"]
    assert await connection.fetchval("SELECT run_id FROM invoice WHERE number = 17") == run.run_id

    failing = program.replace("17", "18") + '    raise SystemExit("the order is not valid")\n'
    with pytest.raises(AssertionError, match="the order is not valid"):
        printed_by(failing, database)
    assert len(await ledger.runs(kind="invoice")) == 1
