"""What a command does for a login that has some of the rights that it needs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from uuid import UUID

import pytest

from runfold.console.cli.kit import exits
from tests.support.console import Cli
from tests.support.logins import with_login

ROLES = ("runfold_worker", "runfold_auditor", "runfold_projector")
Login = Callable[..., Cli]


@pytest.fixture
def login(database: str, capsys: pytest.CaptureFixture[str]) -> Iterator[Login]:
    """Returns a function that gives the program of a login with some rights and every role."""
    with asyncio.Runner() as runner:
        opened = []

        def of(*rights: str) -> Cli:
            made = with_login(database, *ROLES, rights=rights)
            opened.append(made)
            return Cli(runner.run(made.__aenter__()), capsys)

        yield of
        for made in opened:
            runner.run(made.__aexit__(None, None, None))


@pytest.fixture
def owner(database: str, capsys: pytest.CaptureFixture[str]) -> Cli:
    """The program of the ledger's owner."""
    return Cli(database, capsys)


def test_a_run_that_its_submitter_may_not_read_is_submitted_and_its_id_printed(
    login: Login, owner: Cli
) -> None:
    submitter = login("submit")

    plain, as_json = submitter.ok("submit", "parse"), submitter.ok("--json", "submit", "parse")

    assert "lacks the right read" in plain.err
    assert as_json.json.keys() == {"created", "run_id"}
    for run_id in (plain.out.strip(), as_json.json["run_id"]):
        assert owner.ok("--json", "show", str(UUID(run_id))).json["kind"] == "parse"


@pytest.mark.parametrize("words", [("verify",), ("drift",), ("drift", "--sample", "5")])
def test_a_login_that_may_not_read_is_refused_a_check(
    login: Login, owner: Cli, words: tuple[str, ...]
) -> None:
    owner.ok("submit", "parse", "--key", "k")

    refusal = login("work", "submit")(*words)

    assert refusal.code == exits.ERROR
    assert "lacks the right read or audit in project test" in refusal.err
    for right in ("read", "audit"):
        login(right).ok(*words)
