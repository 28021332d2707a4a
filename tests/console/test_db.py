"""Databases and projects from the command line."""

from __future__ import annotations

import pytest

from runfold.console.cli.kit import exits
from runfold.ledger.postgres.urls import driver_url
from tests.support.console import Answer, Cli, cli, execute

__all__ = ["cli"]


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
