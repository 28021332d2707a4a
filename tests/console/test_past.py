"""The command line in the past: `runfold runs --at` and `runfold diff`."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from runfold.console.cli.kit import exits
from runfold.ledger import Ledger, State
from tests.support.console import Cli, cli
from tests.support.runs import claimed

__all__ = ["cli"]


async def _finished(ledger: Ledger) -> UUID:
    lease = await claimed(ledger, "w:1", input={"path": "a.py"})
    await ledger.heartbeat([lease])
    await ledger.transition(lease, State.COMPLETED, output={"lines": 3}, cost_usd_delta=0.25)
    return lease.run_id


def test_runs_at_a_time_is_the_fleet_as_it_was(cli: Cli) -> None:
    run_id = str(cli.given(_finished))
    events = cli.ok("history", run_id, "--json").lines
    later = cli.submitted()

    then = cli.ok("runs", "--at", events[1]["recorded_at"], "--json").json
    table = cli.ok("runs", "--at", events[1]["recorded_at"]).out

    assert (then["run_id"], then["state"], then["worker_id"], then["version"]) == (
        run_id,
        "running",
        "w:1",
        2,
    )
    assert str(later) not in table
    assert cli.ok("runs", "--at", events[1]["recorded_at"], "--state", "completed").out == ""
    assert (
        cli.ok("runs", "--at", events[2]["recorded_at"], "--worker", "w:1", "--json").json[
            "version"
        ]
        == 3
    )


def test_runs_before_the_first_event_or_in_the_future_are_errors(cli: Cli) -> None:
    run = cli.ok("submit", "parse", "--json").json
    early = datetime.fromisoformat(run["created_at"]) - timedelta(seconds=1)

    error = cli.fails(exits.NOT_FOUND, "runs", "--at", early.isoformat(), "--json").error
    assert (error["type"], error["first"]) == ("BeforeFirstEvent", run["created_at"])
    assert (
        cli.fails(exits.USAGE, "runs", "--at", "2099-01-01T00:00:00Z", "--json").error["type"]
        == "FutureInstant"
    )
    assert (
        cli.fails(
            exits.USAGE, "state", run["run_id"], "--at", "2099-01-01T00:00:00Z", "--json"
        ).error["type"]
        == "FutureInstant"
    )
    cli.fails(exits.USAGE, "runs", "--at", "2026-01-01T00:00:00")
    cli.fails(exits.USAGE, "runs", "--at", "yesterday")


def test_diff_shows_columns_side_by_side_and_the_events_between(cli: Cli) -> None:
    run_id = str(cli.given(_finished))

    answer = cli.ok("diff", run_id, "--from", "2", "--to", "4")
    lines = answer.out.splitlines()

    assert lines[0].split() == ["COLUMN", "FROM", "TO"]
    cells = {line.split()[0]: line.split()[1:] for line in lines[1:]}
    assert cells["state"] == ["running", "completed"]
    assert cells["worker_id"] == ["w:1", "-"]
    assert [line.split()[0] for line in lines[-2:]] == ["#3", "#4"]
    assert "by 2 events" in answer.err


def test_diff_as_json_has_values_as_every_other_command_writes_them(cli: Cli) -> None:
    run_id = str(cli.given(_finished))
    events = cli.ok("history", run_id, "--json").lines

    diff = cli.ok("diff", run_id, "--from", events[0]["recorded_at"], "--json").json

    assert (diff["run_id"], diff["from"], diff["to"]) == (run_id, 1, 4)
    assert diff["changes"]["state"] == {"from": "pending", "to": "completed"}
    assert diff["changes"]["output"] == {"from": None, "to": {"lines": 3}}
    assert diff["events"] == events[1:]


def test_diff_refuses_points_that_are_none(cli: Cli) -> None:
    run_id = str(cli.submitted())

    cli.fails(exits.USAGE, "diff", run_id, "--from", "soon")
    cli.fails(exits.NOT_FOUND, "diff", run_id, "--from", "2")
    assert "--from" in cli.fails(exits.USAGE, "diff", run_id, "--from", "2026-01-01").err
