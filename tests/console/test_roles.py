"""The command line of roles: grant, revoke, list, history."""

from __future__ import annotations

from runfold.console.cli.kit import exits
from tests.support.console import Cli, cli

__all__ = ["cli"]


def test_roles_are_granted_listed_and_revoked_on_record(cli: Cli) -> None:
    assert "no members yet" in cli.ok("roles", "list").err
    granted = cli.ok(
        "roles", "grant", "finance", "ann", "--actor", "root", "--reason", "head", "--json"
    ).json
    assert (granted["role"], granted["member"], granted["actor"], granted["reason"]) == (
        "finance",
        "ann",
        "root",
        "head",
    )
    assert "role.granted finance ann by root: head" in cli.ok("roles", "list").out
    assert cli.ok("roles", "list", "other").out == ""
    assert cli.ok("roles", "history", "other").err == "nobody ever had other\n"
    assert "role.revoked finance ann" in cli.ok("roles", "revoke", "finance", "ann").out
    assert (
        "`runfold roles list`" in cli.fails(exits.CONFLICT, "roles", "revoke", "finance", "ann").err
    )
    assert cli.ok("roles", "list").out == ""
    assert [line["type"] for line in cli.ok("roles", "history", "finance", "--json").lines] == [
        "role.granted",
        "role.revoked",
    ]
    cli.fails(exits.USAGE, "roles", "grant", "", "ann")


def test_every_command_of_access_prints_json_where_it_is_asked_for(cli: Cli) -> None:
    granted = cli.ok("access", "grant", "w_login", "--rights", "work", "--json").json
    assert (granted["credential"], granted["rights"]) == ("w_login", ["work"])
    assert cli.ok("access", "list", "--json").json == granted
    assert "user:zoe has no grant here" in cli.ok("access", "list", "user:zoe").err
    named = ("access", "grant", "w_login", "--rights", "work", "--as", "ann")
    assert cli.ok(*named, "--as", "bob*", "--json").json["actors"] == ["ann", "bob*"]
    assert "once for each actor" in cli.fails(exits.USAGE, *named, "--as", "ann,bob").err
    for nobody in ("w_login", "token:0", "user:zoe"):
        said = cli.ok("access", "grant", nobody, "--rights", "work").err
        assert f"{nobody} is not " in said, nobody
    assert "grant again" not in cli.ok("access", "grant", "postgres", "--rights", "work").err
    assert cli.ok("access", "check", "work", "--json").json["allowed"] is True
    assert cli.ok("access", "revoke", "w_login", "--json").json["revoked"] is True
    assert "no API tokens" in cli.ok("access", "tokens").err
    token = cli.ok("access", "token", "ci", "--json").json["credential"]
    assert cli.ok("access", "revoke-token", token, "--json").json["revoked"] is True


def test_a_revocation_says_what_it_took_and_what_is_left(cli: Cli) -> None:
    cli.ok("project", "create", "other")
    cli.ok("access", "grant", "user:zoe", "--rights", "read", "--all-projects")
    cli.ok("--project", "other", "access", "grant", "user:zoe", "--rights", "read,work")
    left = (
        "user:zoe keeps read in *: runfold access revoke user:zoe --all-projects",
        "user:zoe keeps read, work in other: runfold --project other access revoke user:zoe",
    )

    said = cli.ok("access", "revoke", "user:zoe").err.splitlines()
    assert said == ["nothing new: user:zoe had no rights in test", *left]
    said = cli.ok("access", "revoke", "user:zoe", "--all-projects").err.splitlines()
    assert said == ["revoked what user:zoe might do in *", left[1]]
    answer = cli.ok("--json", "access", "revoke", "user:zoe").json
    assert answer == {"credential": "user:zoe", "revoked": False, "kept": ["other"]}


def test_users_and_tokens_are_of_no_project(cli: Cli) -> None:
    elsewhere = Cli(cli.url, cli.capsys, "nowhere")

    elsewhere.ok("users", "add", "zoe", "--issuer", "https://id.example", "--subject", "1")
    token = elsewhere.ok("access", "token", "ci", "--json").json["credential"]

    assert "user:zoe" in elsewhere.ok("users", "list").out
    assert token in elsewhere.ok("access", "tokens").out
    assert "no sessions" in elsewhere.ok("users", "sessions").err
    elsewhere.ok("access", "revoke-token", token)
    elsewhere.ok("users", "disable", "zoe")


def test_a_grant_that_is_past_its_end_is_shown_as_ended(cli: Cli) -> None:
    words = ("access", "grant", "token:0", "--rights", "read", "--until")

    assert cli.ok(*words, "2020-01-01").out.endswith(", ended 2020-01-01 00:00\n")
    assert ", ended 2020" in cli.ok("access", "list").out
    assert cli.ok(*words, "2999-01-01").out.endswith(" until 2999-01-01 00:00\n")
    assert cli.ok(*words, "2999-01-01T01:30+02:00").out.endswith(" until 2998-12-31 23:30\n")
    assert "must be a day or a time" in cli(*words, "9999-12-31T23:00-14:00").err
