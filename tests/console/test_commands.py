"""The command line: what every command does, prints and answers as JSON."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

import asyncpg
import pytest
import structlog

from runfold.console.cli.kit import exits
from runfold.console.cli.main import main
from runfold.ledger import Lease, Ledger, State
from runfold.ledger.postgres.urls import driver_url
from tests.conftest import PROJECT
from tests.support.runs import abandoned, claimed, waiting

T = TypeVar("T")
HEADER = ["RUN", "KIND", "STATE", "TRY", "AGE", "WORKER", "COST", "ERROR", "KEY", "TAGS", "INPUT"]


@dataclass(frozen=True)
class Answer:
    """What one call of the program gave."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object that was printed."""
        (line,) = self.out.splitlines()
        return dict(json.loads(line))

    @property
    def lines(self) -> list[Any]:
        """The JSON objects that were printed, one a line."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def error(self) -> dict[str, Any]:
        """The JSON error that was said."""
        (line,) = self.err.splitlines()
        found = json.loads(line)
        assert list(found) == ["error"]
        return dict(found["error"])


class Cli:
    """The program, called within this process on one database and project."""

    def __init__(
        self, url: str, capsys: pytest.CaptureFixture[str], project: str = PROJECT
    ) -> None:
        self.url, self.capsys, self.project = url, capsys, project

    def __call__(self, *words: str) -> Answer:
        """Call the program, whatever its end."""
        self.capsys.readouterr()
        try:
            code = main(["--url", self.url, "--project", self.project, *words])
        finally:
            structlog.reset_defaults()
        said = self.capsys.readouterr()
        assert "Traceback" not in said.err
        return Answer(code, said.out, said.err)

    def ok(self, *words: str) -> Answer:
        """Call the program, which must succeed."""
        answer = self(*words)
        assert answer.code == exits.OK, answer
        return answer

    def fails(self, code: int, *words: str) -> Answer:
        """Call the program, which must print one line of error, no data, and end with this code."""
        answer = self(*words)
        assert answer.code == code, answer
        assert answer.out == ""
        (line,) = answer.err.splitlines()
        assert line.startswith(("error: ", '{"error": '))
        return answer

    def submitted(self, *words: str) -> UUID:
        """Submit a run."""
        return UUID(self.ok("submit", *(words or ("parse",))).out.strip())

    def given(self, prepare: Callable[[Ledger], Awaitable[T]]) -> T:
        """Bring the ledger to where a test needs it."""

        async def prepared() -> T:
            async with Ledger.open(self.url, self.project) as ledger:
                return await prepare(ledger)

        return asyncio.run(prepared())


def execute(url: str, statement: str, *values: object) -> list[Any]:
    """Run one statement as the superuser."""

    async def executed() -> list[Any]:
        connection = await asyncpg.connect(driver_url(url))
        try:
            return list(await connection.fetch(statement, *values))
        finally:
            await connection.close()

    return asyncio.run(executed())


@pytest.fixture
def cli(database: str, capsys: pytest.CaptureFixture[str]) -> Cli:
    """The program on the test's database."""
    return Cli(database, capsys)


# -- submit ----------------------------------------------------------------------------------------


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


def test_submit_takes_the_whole_input_as_json(cli: Cli) -> None:
    number = 2**70

    run = cli.ok("submit", "parse", f'{{"big": {number}, "text": "a=b ü"}}', "--json").json

    assert run["created"] is True
    assert run["input"] == {"big": number, "text": "a=b ü"}


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


# -- runs ------------------------------------------------------------------------------------------


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
        == {str(held.run_id)}
    )
    assert found("--kind", "fetch") == {str(other), str(cancelled)}
    assert found("--state", "pending,cancelled") == {str(other), str(cancelled)}
    assert found("--state", "pending", "--state", "running") == {str(other), str(held.run_id)}
    assert found("--kind", "fetch", "--state", "running") == set()


def test_runs_can_be_filtered_by_tag(cli: Cli) -> None:
    tagged = cli.submitted("parse", "--tag", "eu", "--tag", "vip")
    cli.submitted("parse", "--tag", "us")

    (run,) = cli.ok("runs", "--json", "--tag", "eu").lines

    assert run["run_id"] == str(tagged)


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


# -- show, state, history --------------------------------------------------------------------------


async def _failed(ledger: Ledger) -> UUID:
    lease = await claimed(ledger, "w:1", input={"path": "a.py"})
    await ledger.retry(lease, error_code="E-HTTP", error_detail={"status": 500})
    (lease,) = await ledger.claim("w:2")
    await ledger.transition(
        lease, State.COMPLETED, output={"lines": 3}, cost_usd_delta=0.25, step_count_delta=2
    )
    return lease.run_id


def test_show_has_the_header_the_content_and_hints(cli: Cli) -> None:
    run_id = cli.given(_failed)

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
    run_id = str(cli.given(_failed))
    events = cli.ok("history", run_id, "--json").lines

    at_two = cli.ok("state", run_id, "--at", "2", "--json").json
    at_time = cli.ok("state", run_id, "--at", events[2]["recorded_at"], "--json").json

    assert (at_two["state"], at_two["version"], at_two["worker_id"]) == ("running", 2, "w:1")
    assert (at_time["state"], at_time["version"], at_time["error_code"]) == ("pending", 3, "E-HTTP")
    assert "running, version 2" in cli.ok("state", run_id, "--at", "2").out


def test_history_is_one_line_an_event(cli: Cli) -> None:
    run_id = cli.given(_failed)

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
    run_id = cli.given(_failed)

    events = cli.ok("history", str(run_id), "--json").lines
    run = cli.ok("show", str(run_id), "--json").json

    assert [event["version"] for event in events] == [1, 2, 3, 4, 5]
    assert events[0]["input"] == {"path": "a.py"}
    assert (events[-1]["output"], events[-1]["cost_usd"]) == ({"lines": 3}, "0.250000")
    assert events[-1]["hash"] == run["hash"]


def test_history_follow_ends_with_the_run(cli: Cli) -> None:
    run_id = cli.given(_failed)

    assert cli.ok("history", str(run_id), "--follow").out == cli.ok("history", str(run_id)).out


def test_what_a_run_contains_cannot_steer_the_terminal(cli: Cli) -> None:
    async def hostile(ledger: Ledger) -> UUID:
        lease = await claimed(
            ledger, "w:1", input={"evil": "\x1b]0;owned\x07 \x9b31m [red]markup[/red] \u202edrow"}
        )
        await ledger.retry(lease, error_code="E\u2028", error_detail="\x1b[2J")
        return lease.run_id

    run_id = str(cli.given(hostile))

    for words in (("show", run_id), ("history", run_id), ("runs",), ("state", run_id, "--at", "3")):
        answer = cli.ok(*words)
        assert all(char == "\n" or char.isprintable() for char in answer.out + answer.err)
    assert "[red]markup[/red]" in cli.ok("show", run_id).out
    assert cli.ok("show", run_id, "--json").json["input"]["evil"].startswith("\x1b]0;")


# -- decisions -------------------------------------------------------------------------------------


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


# -- care ------------------------------------------------------------------------------------------


def test_reap_once_repairs_at_once_and_prints_what(cli: Cli) -> None:
    async def died(ledger: Ledger) -> tuple[Lease, Lease]:
        return (
            await abandoned(ledger, "w:1", begun=True),
            await abandoned(ledger, "w:2", begun=True, max_attempts=1),
        )

    again, never = cli.given(died)

    answer = cli.ok("reap", "--once")

    assert set(answer.out.splitlines()) == {
        f"{again.run_id} pending  attempt 1 of 3  E-RUN-001",
        f"{never.run_id} failed  attempt 1 of 1  E-RUN-002",
    }
    assert "2 runs repaired" in answer.err
    assert cli.ok("reap", "--once", "--json") == Answer(exits.OK, "", "")


def test_reap_logs_what_died_as_json_when_a_program_listens(cli: Cli) -> None:
    lease = cli.given(abandoned)

    answer = cli.ok("reap", "--once", "--json")

    assert answer.json["run_id"] == str(lease.run_id)
    (said,) = answer.err.splitlines()
    assert json.loads(said)["event"] == "stale_run_requeued"


def test_verify_counts_what_it_checked(cli: Cli) -> None:
    run_id = cli.given(_failed)
    cli.submitted()

    assert cli.ok("verify").out.startswith("ok: 2 runs, 6 events, ")
    report = cli.ok("verify", str(run_id), "--json").json
    assert (report["ok"], report["runs"], report["events"], report["findings"]) == (True, 1, 5, [])


def test_verify_names_the_damage_and_ends_with_7(
    unverified_database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cli = Cli(unverified_database, capsys)
    good, bad = cli.submitted(), cli.submitted("parse", "n:=1")
    execute(cli.url, "ALTER TABLE ledger.payload DISABLE TRIGGER refuse_change")
    execute(
        cli.url, 'UPDATE ledger.payload SET body = \'{"input":{"n":2}}\' WHERE run_id = $1', bad
    )

    answer, report = cli("verify"), cli("verify", "--json")

    assert (answer.code, report.code) == (exits.INTEGRITY, exits.INTEGRITY)
    assert f"bad: run {bad} #1 payload: " in answer.out
    assert report.json["ok"] is False
    (finding,) = report.json["findings"]
    assert (finding["run_id"], finding["version"], finding["problem"]) == (str(bad), 1, "payload")
    assert cli("verify", str(good)).code == exits.OK


def test_verify_finds_a_run_whose_state_was_deleted(
    unverified_database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cli = Cli(unverified_database, capsys)
    run_id = cli.submitted()
    execute(cli.url, "DELETE FROM ledger.run_state")

    answer = cli("verify", str(run_id))

    assert answer.code == exits.INTEGRITY
    assert "drift" in answer.out


def test_doctor_finds_a_new_database_healthy(cli: Cli) -> None:
    report = cli.ok("doctor", "--json").json

    assert report["healthy"] is True
    levels = {check["name"]: check["level"] for check in report["checks"]}
    assert levels.pop("privileges") == "warning"  # the tests are a superuser
    assert levels.pop("access") == "warning"  # a copied database is open to PUBLIC
    assert levels == dict.fromkeys(
        (
            *("server", "schema", "settings", "encoding", "clock", "connections", "functions"),
            *("partitions", "objects", "indexes", "time", "feed", "leases", "kinds"),
            *("schedules", "roles", "handlers", "approvals", "limits"),
        ),
        "ok",
    )
    assert cli.ok("doctor").err == "healthy\n"


def test_doctor_finds_runs_of_a_kind_that_nobody_serves(cli: Cli) -> None:
    for kind in ("tpyo", "paused", "served", "served", "later"):
        cli.submitted(kind, *(("--delay", "1h") if kind == "later" else ()))
    cli.ok("kinds", "pause", "paused")
    assert cli.given(lambda ledger: ledger.claim("w:1", kinds=["served"]))
    assert "none waits without a worker" in cli.ok("doctor").out
    execute(
        cli.url,
        "UPDATE ledger.run_state SET available_at = available_at - interval '5 min' "
        "WHERE available_at IS NOT NULL",
    )

    said = cli("doctor")

    execute(
        cli.url,
        "UPDATE ledger.run_state SET available_at = available_at + interval '5 min' "
        "WHERE available_at IS NOT NULL",
    )
    assert said.code == exits.OK
    [line] = [line for line in said.out.splitlines() if "does a worker serve it?" in line]
    assert "1 of kind tpyo in project test" in line
    assert not any(f"of kind {kind}" in line for kind in ("paused", "served", "later"))


def test_doctor_finds_leases_that_no_reaper_came_for(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli.given(abandoned)
    assert cli("doctor").code == exits.OK

    monkeypatch.setenv("RUNFOLD_REAPER_SECONDS", "0.000001")
    answer = cli("doctor")

    assert answer.code == exits.UNHEALTHY
    assert "not reaped: 1 in project test" in answer.out
    assert answer.err == "unhealthy\n"


@pytest.mark.parametrize(
    ("statement", "check"),
    [
        ("COMMENT ON SCHEMA ledger IS 'functions of somebody else'", "functions"),
        ("UPDATE ledger.alembic_version SET version_num = '9999'", "schema"),
        ("DROP SCHEMA ledger CASCADE", "schema"),
    ],
)
def test_doctor_finds_a_schema_that_is_not_this_programs(
    unverified_database: str, capsys: pytest.CaptureFixture[str], statement: str, check: str
) -> None:
    cli = Cli(unverified_database, capsys)
    execute(cli.url, statement)

    report = cli("doctor", "--json")

    assert report.code == exits.UNHEALTHY
    assert [c["name"] for c in report.json["checks"] if c["level"] == "failed"] == [check]


def test_doctor_finds_that_partitions_run_out(
    unverified_database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cli = Cli(unverified_database, capsys)
    (month,) = execute(
        cli.url, "SELECT to_char(now() AT TIME ZONE 'UTC' + interval '1 month', 'YYYY_MM') AS name"
    )
    execute(cli.url, f"DROP TABLE ledger.event_{month['name']}")

    report = cli("doctor", "--json")

    assert report.code == exits.UNHEALTHY
    assert [c["name"] for c in report.json["checks"] if c["level"] == "failed"] == ["partitions"]


# -- database and projects -------------------------------------------------------------------------


def test_db_upgrade_makes_the_schema_once(
    empty_database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cli = Cli(empty_database, capsys)
    before = cli.ok("db", "status", "--json").json

    assert cli.ok("db", "upgrade").out.startswith("schema none upgraded to ")
    assert cli.ok("db", "upgrade").out.endswith("is up to date\n")
    assert cli.ok("db", "upgrade", "--json").json["changed"] is False

    after = cli.ok("db", "status", "--json").json
    assert (before["revision"], before["current"], before["partitions"]) == (None, False, [])
    assert (after["revision"], after["current"], after["embedded"]) == (
        after["wanted"],
        True,
        False,
    )
    assert after["months_ahead"] == len(after["partitions"]) - 1 > 0


def test_db_upgrade_replaces_other_functions(
    unverified_database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cli = Cli(unverified_database, capsys)
    execute(cli.url, "COMMENT ON SCHEMA ledger IS 'functions of somebody else'")
    assert "not this program's" in cli.ok("db", "status").out

    assert "functions replaced" in cli.ok("db", "upgrade").out
    assert cli.ok("db", "status", "--json").json["current"] is True


def test_db_status_hides_the_password_and_db_url_gives_it(cli: Cli) -> None:
    secret = Cli(cli.url.replace("postgres@", "postgres:s3cret@", 1), cli.capsys)
    if secret.url == cli.url:
        pytest.skip("the server's URL has a password of its own")

    assert "s3cret" not in secret.ok("db", "status").out
    assert "s3cret" in secret.ok("db", "url").out
    assert secret.ok("db", "url", "--json").json == {
        "url": driver_url(secret.url),
        "embedded": False,
    }


def test_projects_are_made_once_and_listed(cli: Cli) -> None:
    assert cli.ok("project", "create", "acme") == Answer(exits.OK, "acme\n", "")
    assert "nothing new" in cli.ok("project", "create", "acme").err
    assert cli.ok("project", "create", "acme", "--json").json == {
        "project_id": "acme",
        "created": False,
    }

    assert cli.ok("project", "list").out == "acme\ntest\n"
    assert cli.ok("project", "list", "--json").lines == [
        {"project_id": "acme"},
        {"project_id": "test"},
    ]


def test_projects_do_not_see_each_others_runs(cli: Cli) -> None:
    cli.ok("project", "create", "acme")
    run_id = cli.submitted()

    assert cli.ok("runs", "--project", "acme").out == ""
    cli.fails(exits.NOT_FOUND, "show", str(run_id), "--project", "acme")
    cli.fails(exits.NOT_FOUND, "show", str(run_id)[:20], "--project", "acme")


def test_times_are_written_in_utc_with_milliseconds() -> None:
    from runfold.console.shared.plain import jsonable, moment

    instant = datetime(2026, 1, 31, 13, 30, 0, 123_456, tzinfo=UTC).astimezone()

    assert moment(instant) == "2026-01-31 13:30:00.123Z"
    assert jsonable(instant) == "2026-01-31T13:30:00.123456Z"


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
