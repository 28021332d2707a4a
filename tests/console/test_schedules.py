"""`runfold schedules`, as its user sees it."""

from __future__ import annotations

import json

from runfold.console.cli.kit import exits
from tests.support.console import Cli, cli

__all__ = ["cli"]


def test_a_schedule_is_made_changed_listed_and_taken_away(cli: Cli) -> None:
    made = cli.ok(
        "schedules",
        "add",
        "nightly",
        "clean",
        "deep:=true",
        "--ahead",
        "--cron",
        "30 2 * * *",
        "--actor",
        "ann",
    )
    cli.ok(
        "schedules",
        "add",
        "nightly",
        "clean",
        "--cron",
        "31 2 * * *",
        "--timezone",
        "Europe/Berlin",
    )
    listed = cli.ok("schedules", "list")
    [row] = [json.loads(line) for line in cli.ok("schedules", "list", "--json").out.splitlines()]

    assert "nightly is due" in made.out
    assert "31 2 * * *" in listed.out
    assert (row["kind"], row["timezone"], row["input"]) == ("clean", "Europe/Berlin", None)
    cli.ok("schedules", "pause", "nightly", "--reason", "a flood", "--actor", "bo")
    assert " paused " in cli.ok("schedules", "list").out
    later = cli.ok("schedules", "add", "nightly", "clean", "--cron", "32 2 * * *")
    assert later.out == "nightly is paused\n", "a change does not resume it"
    assert len(cli.ok("schedules", "run", "nightly", "--reason", "once").out.strip()) == 36
    cli.ok("schedules", "resume", "nightly", "--reason", "dry")
    cli.ok("schedules", "remove", "nightly")
    assert "there are: none" in cli.fails(exits.NOT_FOUND, "schedules", "remove", "nightly").err
    assert (
        "five fields"
        in cli.fails(exits.USAGE, "schedules", "add", "n", "clean", "--cron", "daily").err
    )
