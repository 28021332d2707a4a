"""Submitting, listing and cancelling runs from the command line."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

import pytest
import structlog

from runfold.console.cli.commands import history
from runfold.console.cli.kit import exits
from runfold.console.cli.main import main
from runfold.ledger.postgres.connections import NewConnections
from tests.support.console import Answer, Cli, cli, failed
from tests.support.runs import claimed

__all__ = ["cli"]
HEADER = [
    "RUN", "KIND", "STATE", "ATTEMPT", "AGE", "WORKER", "COST", "ERROR", "KEY", "TAGS", "INPUT",
]  # fmt: skip


def test_submit_prints_the_run_id_and_says_on_stderr_how_to_watch_it(cli: Cli) -> None:
    answer = cli.ok(
        "submit",
        "parse",
        "path=a.py",
        "size:=12",
        "deep:=[1, {}]",
        "--priority",
        "3",
        "--tag",
        "eu",
    )

    run = cli.ok("show", answer.out.strip(), "--json").json
    assert run["input"] == {"path": "a.py", "size": 12, "deep": [1, {}]}
    assert (run["kind"], run["priority"], run["tags"], run["state"]) == (
        "parse",
        3,
        ["eu"],
        "pending",
    )
    assert "runfold history" in answer.err


def test_submit_opens_one_connection(cli: Cli) -> None:
    before = NewConnections.count
    cli.submitted()
    assert NewConnections.count - before == 1


def test_submit_takes_the_whole_input_as_json(cli: Cli) -> None:
    number = 2**70

    run = cli.ok("submit", "parse", f'{{"big": {number}, "text": "a=b ü"}}', "--json").json

    assert run["created"] is True
    assert run["input"] == {"big": number, "text": "a=b ü"}


def test_a_closed_standard_input_is_an_empty_one(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    assert "input '': is not JSON" in cli.fails(exits.USAGE, "submit", "parse", "-").err
    monkeypatch.setattr("sys.stdin", None)
    assert cli.ok("mcp").out == ""


def test_submit_takes_its_input_from_stdin(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO('["from", "stdin"]'))

    assert cli.ok("submit", "parse", "-", "--json").json["input"] == ["from", "stdin"]


def test_runs_are_found_by_a_query_page_by_page(cli: Cli) -> None:
    first = cli.submitted("parse", "--tag", "x")
    second = cli.submitted("parse", "--tag", "x")
    cli.submitted("other", "--tag", "y")

    page = cli.ok("runs", "tag:x state:pending age:<1h", "--limit", "1")
    assert page.out.splitlines()[-1].split()[0] == str(second)
    assert f"there are more: --before {second}" in page.err
    rest = cli.ok("runs", "tag:x state:pending age:<1h", "--before", str(second))
    assert str(first) in rest.out
    assert "no such runs" in cli.ok("runs", "tag:x kind:other").err


def test_a_query_is_refused_with_its_word_and_goes_with_no_filter(cli: Cli) -> None:
    refused = cli("runs", "kind:a wroker:w7")
    assert refused.code == exits.USAGE
    assert "query 'wroker:w7'" in refused.err
    assert "(at character 8)" in refused.err
    assert "state:failed" in cli("runs", "kind:a", "--state", "failed").err


def test_submit_with_a_key_gives_the_same_run_again_and_says_so(cli: Cli) -> None:
    first = cli.submitted("parse", "n:=1", "--key", "k")

    again = cli.ok("submit", "parse", "n:=1", "--key", "k")

    assert UUID(again.out.strip()) == first
    assert "nothing new" in again.err
    assert cli.ok("submit", "parse", "n:=1", "--key", "k", "--json").json["created"] is False


def test_submit_with_a_used_key_and_other_content_is_a_conflict(cli: Cli) -> None:
    first = cli.submitted("parse", "n:=1", "--key", "k")

    error = cli.fails(exits.CONFLICT, "submit", "parse", "n:=2", "--key", "k", "--json").error

    assert (error["type"], error["key"], error["run_id"]) == ("DuplicateKey", "k", str(first))
    assert set(error) == {"type", "message", "key", "run_id", "version"}


def test_submit_takes_delays_and_deadlines_in_units(cli: Cli) -> None:
    run = cli.ok(
        "submit", "parse", "--delay", "2h", "--deadline", "1d", "--max-attempts", "1", "--json"
    ).json
    fixed = cli.ok("submit", "parse", "--deadline", "2100-01-01T01:00:00+01:00", "--json").json

    created = datetime.fromisoformat(run["created_at"])
    assert datetime.fromisoformat(run["available_at"]) - created == timedelta(hours=2)
    assert datetime.fromisoformat(run["deadline"]) - created == timedelta(days=1)
    assert run["max_attempts"] == 1
    assert fixed["deadline"] == "2100-01-01T00:00:00Z"


def test_runs_lists_the_newest_first_in_columns(cli: Cli) -> None:
    first, second = cli.submitted("parse"), cli.submitted("fetch")

    lines = cli.ok("runs").out.splitlines()

    assert lines[0].split() == HEADER
    assert [line.split()[:4] for line in lines[1:]] == [
        [str(second), "fetch", "pending", "0/3"],
        [str(first), "parse", "pending", "0/3"],
    ]
    assert "\x1b" not in "".join(lines)


def test_runs_as_json_is_one_whole_run_a_line(cli: Cli) -> None:
    first, second = cli.submitted("parse"), cli.submitted("parse")

    runs = cli.ok("runs", "--json").lines

    assert [run["run_id"] for run in runs] == [str(second), str(first)]
    assert runs[0] == cli.ok("show", str(second), "--json").json


def test_runs_can_be_filtered_by_each_option(cli: Cli) -> None:
    held = cli.given(lambda ledger: claimed(ledger, "w:9", key="k", tags=["eu", "vip"]))
    other = cli.submitted("fetch", "--tag", "us")
    cancelled = cli.submitted("fetch")
    cli.ok("cancel", str(cancelled))

    def found(*words: str) -> set[str]:
        return {run["run_id"] for run in cli.ok("runs", "--json", *words).lines}

    assert (
        found("--state", "running")
        == found("--worker", "w:9")
        == found("--key", "k")
        == found("--tag", "vip")
        == {str(held.run_id)}
    )
    assert found("--kind", "fetch") == {str(other), str(cancelled)}
    assert found("--state", "pending,cancelled") == {str(other), str(cancelled)}
    assert found("--state", "pending", "--state", "running") == {str(other), str(held.run_id)}
    assert found("--kind", "fetch", "--state", "running") == set()


def test_runs_come_in_pages(cli: Cli) -> None:
    submitted = [str(cli.submitted()) for _ in range(5)]

    first = cli.ok("runs", "--limit", "3")
    before = first.out.splitlines()[-1].split()[0]
    rest = cli.ok("runs", "--limit", "3", "--before", before, "--json").lines

    assert f"--before {before}" in first.err
    assert [run["run_id"] for run in rest] == submitted[1::-1]
    back = cli.ok("runs", "--limit", "2", "--after", submitted[1])
    assert [line.split()[0] for line in back.out.splitlines()[1:]] == submitted[3:1:-1]
    assert f"--after {submitted[3]}" in back.err
    newer = cli.ok("runs", "state:pending", "--limit", "2", "--after", submitted[1])
    assert f"--after {submitted[3]}" in newer.err
    since = cli.ok("runs", "--since", "2000-01-01T00:00Z", "--json").lines
    assert [run["run_id"] for run in since] == submitted[::-1]
    assert "no such runs" in cli.ok("runs", "--until", "2000-01-01T00:00Z").err
    cli.fails(exits.USAGE, "runs", "--until", "yesterday")
    cli.fails(exits.USAGE, "runs", "state:pending", "--since", "2000-01-01T00:00Z")


def test_runs_show_what_tells_them_apart(cli: Cli) -> None:
    cli.submitted("parse", "path=a.py", "--key", "k:1", "--tag", "eu", "--tag", "vip")

    row = cli.ok("runs").out.splitlines()[1]

    assert row.split()[-4:] == ["k:1", "eu,vip", '{"path":', '"a.py"}']


def test_runs_are_counted_by_state_and_filter(cli: Cli) -> None:
    held = cli.given(lambda ledger: claimed(ledger, "w:9", key="k", tags=["eu"]))
    cli.submitted("fetch")
    cli.ok("cancel", str(cli.submitted("fetch")))

    counted = cli.ok("runs", "--count", "--json").json
    assert counted == {"total": 3, "states": {"pending": 1, "running": 1, "cancelled": 1}}
    for words in (("--worker", "w:9"), ("--key", "k"), ("--tag", "eu"), ("--state", "running")):
        assert cli.ok("runs", "--count", "--json", *words).json["total"] == 1
    assert cli.ok("runs", "--count", "--kind", "fetch").out.split()[-2:] == ["total", "2"]
    cli.fails(exits.NOT_FOUND, "runs", "--count", "--kind", "nosuch")
    cli.fails(exits.USAGE, "runs", "--count", "--before", str(held.run_id))


def test_workers_are_those_that_hold_runs(cli: Cli) -> None:
    assert "no worker holds a run" in cli.ok("workers").err
    cli.given(lambda ledger: claimed(ledger, "w:9"))
    cli.given(lambda ledger: claimed(ledger, "w:9"))

    (holder,) = cli.ok("workers", "--json").lines
    assert (holder["worker_id"], holder["held"], holder["kinds"]) == ("w:9", 2, ["parse"])
    assert cli.ok("workers").out.splitlines()[1].split()[:3] == ["w:9", "2", "parse"]


def test_no_runs_are_no_error(cli: Cli) -> None:
    assert cli.ok("runs").out == ""
    assert cli.ok("runs", "--json") == Answer(exits.OK, "", "")


def test_cancel_ends_a_pending_run_with_its_reason_and_actor(cli: Cli) -> None:
    run_id = str(cli.submitted())

    answer = cli.ok("cancel", run_id, "--reason", "duplicate", "--actor", "ann")
    last = cli.ok("history", run_id, "--json").lines[-1]

    assert answer == Answer(exits.OK, f"{run_id} cancelled\n", "")
    assert (last["type"], last["actor"], last["reason"]) == ("run.cancelled", "ann", "duplicate")


def test_cancel_of_a_held_run_is_a_request(cli: Cli) -> None:
    lease = cli.given(claimed)

    answer = cli.ok("cancel", str(lease.run_id))

    assert answer.out == f"{lease.run_id} running\n"
    assert "next heartbeat" in answer.err


def test_cancel_of_an_ended_run_is_a_conflict(cli: Cli) -> None:
    run_id = str(cli.submitted())
    cli.ok("cancel", run_id)

    error = cli.fails(exits.CONFLICT, "cancel", run_id, "--json").error

    assert (error["type"], error["from_state"]) == ("IllegalTransition", "cancelled")


def test_tail_says_that_a_kind_is_new_and_goes_on_from_no_refused_place(cli: Cli) -> None:
    cli.submitted()
    tail = ("tail", "--no-follow", "--after")

    assert "known kinds: parse" in cli.ok(*tail, "start", "--kind", "prase").err
    assert "known kinds" not in cli.ok(*tail, "start", "--kind", "parse").err
    cli.fails(exits.ERROR, *tail, "99/1:1:@0//0")


def test_the_demo_is_called_with_the_wish_for_json(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def run(*, json: bool, verbose: bool) -> int:
        assert not verbose
        asked.append(json)
        return exits.OK

    monkeypatch.setattr("runfold.console.cli.commands.demo.run", run)

    assert main(["demo", "--json"]) == exits.OK
    assert main(["demo"]) == exits.OK
    structlog.reset_defaults()

    assert asked == [True, False]


def test_a_history_is_printed_whole_however_many_events_are_read_at_a_time(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = str(cli.given(failed))
    whole = cli.ok("history", run_id).out
    for page in (1, 2, len(whole.splitlines())):
        monkeypatch.setattr(history, "PAGE", page)
        assert cli.ok("history", run_id).out == whole
        assert cli.ok("history", run_id, "--follow").out == whole
