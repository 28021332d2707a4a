"""`runfold users`, as docs/howto/sign-in.md shows it."""

from __future__ import annotations

import io
import re
import shlex
from pathlib import Path

import pytest

from runfold.console.cli.kit import exits
from tests.support.console import Cli, cli

__all__ = ["cli"]

PAGE = Path(__file__).parents[2] / "docs/howto/sign-in.md"
PASSWORD = "correct horse battery"  # noqa: S105  of the tests alone


def test_the_commands_of_the_page_work(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    text = PAGE.read_text()
    blocks = re.findall(r"```text\n(.*?)```", text, re.DOTALL)
    lines = "".join(blocks).split("\n")
    for line in filter(None, lines):
        monkeypatch.setattr("sys.stdin", io.StringIO(f"{PASSWORD}\n"))
        words = shlex.split(line.replace("--project shop ", ""))[1:]
        answer = cli.ok(*words)
        assert PASSWORD not in answer.out + answer.err
    assert "nobody is signed in" in cli.ok("users", "sessions").err
    assert "user:ann: password, 0 failed tries" in cli.ok("users", "list").out


@pytest.mark.parametrize("password", ["", "short", "x" * 201])
def test_a_password_that_is_none_adds_nobody(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, password: str
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{password}\n"))
    answer = cli("users", "add", "ann")
    assert answer.code not in {exits.OK, 70}
    assert not password or password not in answer.err
    assert cli.ok("users", "list").out == ""
