"""Repairing and checking a ledger from the command line: reap, verify, doctor."""

from __future__ import annotations

import json

import pytest

from runfold.console.cli.kit import exits
from runfold.ledger import Lease, Ledger
from tests.support.console import Answer, Cli, cli, execute, failed
from tests.support.runs import abandoned

__all__ = ["cli"]


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
    run_id = cli.given(failed)
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
            *("projections", "webhooks"),
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
