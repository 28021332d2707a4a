"""`runfold rerun`: a new run linked to the old one, once for each run, also by query."""

from __future__ import annotations

from uuid import UUID

import pytest

from runfold.console.cli.kit import exits
from runfold.ledger import Ledger, State
from tests.console.test_process import typed
from tests.support.console import Cli, cli
from tests.support.runs import claimed

__all__ = ["cli"]


async def failed(ledger: Ledger, code: str = "E-HTTP") -> UUID:
    """Bring a run to its failure."""
    lease = await claimed(ledger, input={"path": "a.py"}, tags=["eu"], priority=3, max_attempts=2)
    await ledger.transition(lease, State.FAILED, error_code=code)
    return lease.run_id


def test_a_rerun_is_a_new_run_with_the_same_input_linked_both_ways(cli: Cli) -> None:
    old = str(cli.given(failed))

    done = cli.ok("rerun", old, "--reason", "fixed upstream", "--actor", "ann", "--json").json
    new = cli.ok("show", done["run_id"], "--json").json

    assert (done["rerun_of"], done["created"]) == (old, True)
    same = ("kind", "input", "priority", "max_attempts", "tags")
    before = cli.ok("show", old, "--json").json
    assert [new[name] for name in same] == [before[name] for name in same]
    assert (new["state"], before["state"]) == ("pending", "failed")
    notes = [cli.ok("history", run, "--json").lines[-1] for run in (old, done["run_id"])]
    assert [(note["actor"], note["text"]) for note in notes] == [
        ("ann", f"rerun as {done['run_id']}: fixed upstream"),
        ("ann", f"rerun of {old}: fixed upstream"),
    ]
    assert f"rerun of  {old}" in cli.ok("show", done["run_id"]).out


def test_a_run_has_one_rerun_and_the_rerun_may_be_rerun(cli: Cli) -> None:
    old = str(cli.given(failed))
    first = cli.ok("rerun", old, "--json").json

    again = cli.ok("rerun", old, "--json").json
    cli.fails(exits.CONFLICT, "rerun", first["run_id"])  # it has not ended
    cli.ok("cancel", first["run_id"])
    third = cli.ok("rerun", first["run_id"], "--json").json

    assert (again["run_id"], again["created"]) == (first["run_id"], False)
    assert third["created"]
    assert cli.ok("history", old, "--json").lines[-1]["text"] == f"rerun as {first['run_id']}"


def test_runs_are_rerun_by_query_with_a_count_and_a_reason(cli: Cli) -> None:
    timed_out = cli.given(lambda ledger: failed(ledger, "E-TIME"))
    others = {str(cli.given(failed)) for _ in range(2)}
    words = ("rerun", "--query", "state:failed error:E-HTTP")

    assert "--reason" in cli.fails(exits.USAGE, *words, "--count", "2").err
    assert "--count 2" in cli.fails(exits.USAGE, *words, "--reason", "fixed").err
    assert (
        "found 2 runs, not 3"
        in cli.fails(exits.USAGE, *words, "--reason", "fixed", "--count", "3").err
    )
    done = cli.ok(*words, "--reason", "fixed", "--count", "2", "--json").lines

    assert {one["run_id"] for one in done} == others
    assert cli.ok("runs", "--count", "--json").json["states"] == {"pending": 2, "failed": 3}
    assert str(timed_out) not in others


def test_a_rerun_is_found_again_although_its_input_is_redacted_otherwise_by_now(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, other = str(cli.given(failed)), str(cli.given(failed))
    first = cli.ok("rerun", old, "--json").json["run_id"]
    monkeypatch.setenv("RUNFOLD_REDACT_NAMES", "path")

    words = ("--query", "state:failed", "--reason", "fixed", "--count", "2", "--json")
    done = {one["run_id"]: one for one in cli.ok("rerun", *words).lines}

    assert (done[old]["what"], done[old]["new_run_id"]) == ("rerun before", first)
    assert done[other]["what"] == "rerun"
    assert cli.ok("rerun", old, "--json").json["run_id"] == first


def test_a_terminal_is_asked_before_many_runs_are_rerun(cli: Cli, database: str) -> None:
    cli.given(failed)
    words = ("rerun", "--query", "state:failed", "--reason", "fixed")

    refused, code = typed(database, "n\n", *words)
    assert "rerun 1 run? [y/N]" in refused
    assert (code, cli.ok("runs", "--count", "--json").json["total"]) == (exits.ERROR, 1)
    _, code = typed(database, "yes\n", *words)
    assert (code, cli.ok("runs", "--count", "--json").json["total"]) == (exits.OK, 2)


def test_what_cannot_be_rerun_is_refused_before_anything_is_submitted(cli: Cli) -> None:
    old, pending = str(cli.given(failed)), str(cli.submitted())

    assert "only an ended run" in cli.fails(exits.CONFLICT, "rerun", old, pending).err
    cli.fails(exits.USAGE, "rerun")
    cli.fails(exits.USAGE, "rerun", old, "--count", "1")
    words = ("--query", "state:running", "--reason", "r", "--count", "1")
    assert "takes runs that are" in cli.fails(exits.USAGE, "rerun", *words).err

    assert cli.ok("runs", "--count", "--json").json["total"] == 2


def test_submit_takes_who_asks(cli: Cli) -> None:
    run_id = str(cli.submitted("parse", "--actor", "ann"))

    assert cli.ok("history", run_id, "--json").lines[0]["actor"] == "ann"


def test_runs_are_cancelled_and_rerun_by_query(cli: Cli) -> None:
    old, pending = str(cli.given(failed)), str(cli.submitted())
    words = ("--reason", "fixed", "--actor", "ann", "--json")

    assert "--count 1" in cli.fails(exits.USAGE, "cancel", "--query", "kind:parse", *words).err
    cli.fails(exits.USAGE, "cancel", "--query", "kind:parse", *words, "--count", "2")
    cli.fails(exits.USAGE, "cancel", pending, "--query", "kind:parse")
    cli.fails(exits.USAGE, "cancel")
    cli.fails(exits.USAGE, "rerun", old, "--query", "kind:parse")
    cancelled = cli.ok("cancel", "--query", "kind:parse", *words, "--count", "1").json
    assert (cancelled["run_id"], cancelled["what"]) == (pending, "cancelled")
    assert cli.ok("history", pending, "--json").lines[-1]["actor"] == "ann"
    rerun = cli.ok("rerun", "--query", "kind:parse", *words, "--count", "1").json
    assert rerun["run_id"] == old
    assert cli.ok("show", rerun["new_run_id"], "--json").json["state"] == "pending"
