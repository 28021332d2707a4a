"""The API against requests that its own OpenAPI describes, and against those that it does not."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest

from runfold.ledger import Ledger
from tests.console.web.test_processes import serving
from tests.support.web import token

EXAMPLES = "4"
"""For each operation: some twenty seconds in all. Far more found nothing else."""
OPERATIONS = 38
CHECKS = "not_a_server_error,content_type_conformance,response_schema_conformance"
RIGHTS = ["submit", "work", "read", "decide", "schedule", "audit", "admin"]


@pytest.mark.slow
async def test_no_request_is_answered_with_a_fault_or_beside_the_description(
    database: str, ledger: Ledger, tmp_path: Path
) -> None:
    _, secret = await token(ledger, RIGHTS, actors=["*"])
    await ledger.submit("parse")
    program = str(Path(sys.executable).parent / "schemathesis")
    with serving(database) as (address, _):
        words = [
            program, "run", f"{address}/v1/openapi.json", "--no-color", "--seed", "1",
            "--header", f"Authorization: Bearer {secret}", "--phases", "fuzzing",
            "--max-examples", EXAMPLES, "--checks", CHECKS, "--exclude-path", "/v1/events",
            "--exclude-path", "/v1/integrity/verify", "--generation-database", "none",
            "--exclude-path", "/v1/runs/lines",  # it writes no lines of JSON; test_delivering does
        ]  # fmt: skip
        done = await asyncio.to_thread(
            subprocess.run,
            words,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )

    assert done.returncode == 0, done.stdout + done.stderr
    tested = re.search(r"Tested: (\d+)", done.stdout)
    assert tested, done.stdout
    assert int(tested[1]) >= OPERATIONS
