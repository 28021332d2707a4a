"""Every command about a project of others: it answers as about one that does not exist."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Final

import pytest

from runfold.console.cli.kit import exits
from runfold.ledger import Ledger, access
from tests.console.test_json import CALLS, EMPTY, REFUSED
from tests.console.test_mistakes import login_with_rights
from tests.support.console import Cli, cli
from tests.support.logins import as_login

__all__ = ["cli"]

OF_NO_PROJECT: Final = {
    "db upgrade", "db status", "db url", "project create second", "project list",
}  # fmt: skip
OF_THE_SERVER: Final = {"doctor", "metrics --once", "archive list", "archive history"}
"""They tell of what the login may see, whichever project is named."""
RUN: Final = "01a22335-cb51-73b0-ae5c-5a08e0a49e96"


@pytest.mark.slow
def test_no_command_tells_a_project_of_others_from_one_that_does_not_exist(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, subtests: pytest.Subtests
) -> None:
    monkeypatch.setenv("RUNFOLD_ARCHIVE", str(tmp_path))

    async def theirs() -> None:
        async with Ledger.open(cli.url, "zz-theirs", create_project=True) as ledger:
            await ledger.submit("parse", {"secret": 1}, key="k")

    asyncio.run(theirs())
    with login_with_rights(cli.url, "runfold_worker", *access.RIGHTS) as login:
        url = as_login(cli.url, login, "")
        for call in (*CALLS, *REFUSED, *EMPTY):
            if call in OF_NO_PROJECT:
                continue
            words = [RUN if word.isupper() else word.replace("~", " ") for word in call.split()]
            answers = []
            for project in ("zz-theirs", "zz-nowhere"):
                answer = Cli(url, cli.capsys, project)(*words)
                told = (answer.out + answer.err).replace(project, "P")
                answers.append((answer.code, re.sub(r"[+-]?\d+", "N", told)))
            with subtests.test(call):
                assert answers[0] == answers[1]
                assert (answers[0][0] == exits.OK) == (call in OF_THE_SERVER)
                assert "zz-" not in answers[0][1]
