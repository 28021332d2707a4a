"""`runfold kinds`: what a person sees of pauses and limits."""

from __future__ import annotations

import json

import pytest

from runfold.console.cli.kit import exits
from runfold.console.cli.main import main
from tests.support.console import Cli, cli
from tests.support.databases import PROJECT

__all__ = ["cli"]


def test_a_kind_is_paused_limited_resumed_and_all_of_it_told(
    database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--url", database, "--project", PROJECT]

    assert (
        main(["kinds", "pause", "parse", "--ahead", "--actor", "ann", "--reason", "broken", *where])
        == 0
    )
    assert main(["kinds", "limit", "parse", "5", "--actor", "ann", *where]) == 0
    assert main(["kinds", "resume", "parse", "--actor", "bob", *where]) == 0
    assert main(["kinds", "list", *where]) == 0
    said = capsys.readouterr().out.splitlines()
    assert main(["kinds", "history", "parse", "--json", *where]) == 0
    history = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert main(["kinds", "limit", "parse", "--json", *where]) == 0
    unlimited = json.loads(capsys.readouterr().out)

    assert said == [
        "parse: paused",
        "parse: paused, at most 5",
        "parse: open, at most 5",
        "parse: open, at most 5, 0 held",
    ]
    assert [
        (event["type"], event["actor"], event["reason"], event["max_running"]) for event in history
    ] == [
        ("kind.paused", "ann", "broken", None),
        ("kind.limited", "ann", None, 5),
        ("kind.resumed", "bob", None, None),
    ]
    assert unlimited["max_running"] is None


def test_a_limit_of_nothing_is_refused_in_words(
    database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(
        ["kinds", "limit", "parse", "0", "--ahead", "--url", database, "--project", PROJECT]
    )

    assert code != 0
    assert "max_running 0: must be 1 to" in capsys.readouterr().err


def test_a_kind_that_nobody_submitted_is_misspelled_unless_its_name_is_said_to_be_new(
    cli: Cli,
) -> None:
    cli.submitted("parse")

    for words in (("pause", "pasre"), ("resume", "pasre"), ("limit", "pasre", "3")):
        failed = cli.fails(exits.NOT_FOUND, "kinds", *words)
        assert "no run of kind 'pasre' was ever submitted" in failed.err
        assert "known kinds: parse; `ahead`" in failed.err
    assert "pasre" not in cli.ok("kinds", "list").out

    cli.ok("kinds", "pause", "load", "--ahead")
    cli.ok("kinds", "resume", "load")
    cli.ok("kinds", "limit", "parse", "3")
