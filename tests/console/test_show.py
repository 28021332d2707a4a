"""Showing a run, its state and its history from the command line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from runfold.console.shared.plain import span
from runfold.ledger import Ledger, State
from tests.support.console import Cli, cli, failed
from tests.support.runs import abandoned, claimed, waiting

__all__ = ["cli"]


def test_show_has_the_header_the_content_and_hints(cli: Cli) -> None:
    run_id = cli.given(failed)

    answer = cli.ok("show", str(run_id))

    for expected in (
        "completed, version 5",
        "attempt   2 of 3",
        "$0.25, 2 steps",
        '"path": "a.py"',
        '"lines": 3',
    ):
        assert expected in answer.out
    assert f"runfold verify {run_id}" in answer.err


def test_show_has_the_lease_of_a_held_run(cli: Cli) -> None:
    lease = cli.given(lambda ledger: claimed(ledger, "w:7"))

    assert f"w:7 under token {lease.token}, until " in cli.ok("show", str(lease.run_id)).out


def test_show_has_the_last_failure_of_a_run_that_goes_on(cli: Cli) -> None:
    async def retried(ledger: Ledger) -> UUID:
        lease = await claimed(ledger)
        await ledger.retry(lease, error_code="E-HTTP", error_detail={"status": 500})
        return lease.run_id

    assert 'failure   E-HTTP  {"status": 500}' in cli.ok("show", str(cli.given(retried))).out


def test_show_says_what_to_do_with_a_lapsed_lease_and_with_an_approval(cli: Cli) -> None:
    lapsed = cli.given(abandoned)
    parked = cli.given(lambda ledger: waiting(ledger, State.WAITING_APPROVAL, park=True))

    assert "runfold reap --once" in cli.ok("show", str(lapsed.run_id)).err
    assert f"runfold approve {parked.run_id} --request 3" in cli.ok("show", str(parked.run_id)).err


def test_state_at_a_version_and_at_a_time_is_the_run_as_it_was(cli: Cli) -> None:
    run_id = str(cli.given(failed))
    events = cli.ok("history", run_id, "--json").lines

    at_two = cli.ok("state", run_id, "--at", "2", "--json").json
    at_time = cli.ok("state", run_id, "--at", events[2]["recorded_at"], "--json").json

    assert (at_two["state"], at_two["version"], at_two["worker_id"]) == ("running", 2, "w:1")
    assert (at_time["state"], at_time["version"], at_time["error_code"]) == ("pending", 3, "E-HTTP")
    assert "running, version 2" in cli.ok("state", run_id, "--at", "2").out


def test_history_is_one_line_an_event(cli: Cli) -> None:
    run_id = cli.given(failed)

    lines = cli.ok("history", str(run_id)).out.splitlines()

    assert [line.split()[4] for line in lines] == [
        "run.submitted",
        "lease.acquired",
        "run.retried",
        "lease.acquired",
        "run.completed",
    ]
    assert [line.split()[0] for line in lines] == ["#1", "#2", "#3", "#4", "#5"]
    for expected in ("→ running", "attempt 1", "token 2", "until "):
        assert expected in lines[1]
    for expected in ("→ pending", "E-HTTP", "compensates #2", '{"status": 500}'):
        assert expected in lines[2]
    for expected in ("→ completed", "$0.25", "+2 steps"):
        assert expected in lines[4]


def test_history_shows_late_beats_and_refused_writes(cli: Cli) -> None:
    async def zombie(ledger: Ledger) -> UUID:
        lease = await abandoned(ledger, "w:slow")
        await ledger.heartbeat([lease])
        await ledger.release(lease)
        await ledger.heartbeat([lease])
        return lease.run_id

    lines = cli.ok("history", str(cli.given(zombie))).out.splitlines()

    assert "ms late" in lines[2]
    assert "write.refused" in lines[4]
    assert "token 2" in lines[4]


def test_history_as_json_has_every_field_and_the_chained_hash(cli: Cli) -> None:
    run_id = cli.given(failed)

    events = cli.ok("history", str(run_id), "--json").lines
    run = cli.ok("show", str(run_id), "--json").json

    assert [event["version"] for event in events] == [1, 2, 3, 4, 5]
    assert events[0]["input"] == {"path": "a.py"}
    assert (events[-1]["output"], events[-1]["cost_usd"]) == ({"lines": 3}, "0.250000")
    assert events[-1]["hash"] == run["hash"]


def test_times_are_written_in_utc_with_milliseconds() -> None:
    from runfold.console.shared.plain import jsonable, moment

    instant = datetime(2026, 1, 31, 13, 30, 0, 123_456, tzinfo=UTC).astimezone()

    assert moment(instant) == "2026-01-31 13:30:00.123Z"
    assert jsonable(instant) == "2026-01-31T13:30:00.123456Z"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        *((0.0004, "0ms"), (0.9996, "1.0s"), (9.96, "10s"), (59.7, "1m00s"), (959.8, "16m00s")),
        *((3599.9, "1h00m"), (86_399.6, "1d00h"), (90_000, "1d01h")),
    ],
)
def test_a_length_of_time_is_rounded_before_it_is_parted(seconds: float, said: str) -> None:
    assert span(timedelta(seconds=seconds)) == said
