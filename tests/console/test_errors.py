"""The command line when something is wrong: one line, the right exit code, and nothing written."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest

from runfold.console.cli.kit import exits
from runfold.console.cli.kit.run_id import AmbiguousRun, id_range
from runfold.console.cli.main import main
from runfold.ledger.errors import InvalidValue
from tests.support.console import Cli, cli, execute
from tests.support.logins import as_login

__all__ = ["cli"]


def events_in(cli: Cli) -> int:
    """Count the events of the whole database."""
    (row,) = execute(cli.url, "SELECT count(*) AS number FROM ledger.event")
    return int(row["number"])


# -- finding runs by a prefix ----------------------------------------------------------------------


def test_any_unique_prefix_names_the_run(cli: Cli) -> None:
    run_id = str(cli.submitted())

    for given in (
        run_id[:6],
        run_id[:9],
        run_id[:10],
        run_id.upper(),
        run_id.replace("-", "")[:20],
        run_id,
    ):
        assert cli.ok("show", given, "--json").json["run_id"] == run_id


def test_an_ambiguous_prefix_names_candidates(cli: Cli) -> None:
    first, second = cli.submitted(), cli.submitted()
    shared = str(first)[:6]  # of the clock: the same for hours

    error = cli.fails(exits.USAGE, "show", shared, "--json").error

    assert error["type"] == AmbiguousRun.__name__
    assert error["candidates"] == [str(first), str(second)]
    assert "give more digits" in cli.fails(exits.USAGE, "cancel", shared).err


def test_a_prefix_of_no_run_is_not_found(cli: Cli) -> None:
    cli.submitted()

    assert cli.fails(exits.NOT_FOUND, "show", "00000000", "--json").error["type"] == "RunNotFound"


@pytest.mark.parametrize(
    "given",
    [
        "",
        "-",
        "abc",
        "01-",
        "nonsense",
        "0197é297",
        "0" * 33,
        "--",
        "01%7",
        "0197c2a1\x00",
        "' OR 1=1",
    ],
)
def test_what_cannot_begin_a_run_id_is_refused(given: str) -> None:
    with pytest.raises(InvalidValue, match="run id"):
        id_range(given)


def test_a_prefix_spans_the_ids_that_begin_with_it() -> None:
    assert id_range("0197c2a1-") == (
        uuid.UUID("0197c2a1-0000-0000-0000-000000000000"),
        uuid.UUID("0197c2a1-ffff-ffff-ffff-ffffffffffff"),
    )


# -- nonsense --------------------------------------------------------------------------------------

NOWHERE = "01970000-0000-7000-8000-000000000000"


NONSENSE = [
    (exits.USAGE, ("runs", "--state", "sleeping")),
    (exits.USAGE, ("runs", "--state", "")),
    (exits.USAGE, ("runs", "--limit", "0")),
    (exits.USAGE, ("runs", "--limit", "10001")),
    (exits.USAGE, ("runs", "--limit", "many")),
    (exits.USAGE, ("runs", "--before", "xyz")),
    (exits.NOT_FOUND, ("runs", "--kind", "no-such-kind")),
    (exits.NOT_FOUND, ("runs", "--project", "no-such-project")),
    (exits.USAGE, ("runs", "--project", "no\nproject")),
    (exits.USAGE, ("show", "malformed")),
    (exits.USAGE, ("show", str(uuid.UUID("c9f0f895-fb98-4b91-99f8-1a8e07c5a2d4")))),
    (exits.NOT_FOUND, ("show", NOWHERE)),
    (exits.NOT_FOUND, ("history", NOWHERE)),
    (exits.NOT_FOUND, ("history", NOWHERE, "--follow")),
    (exits.NOT_FOUND, ("cancel", NOWHERE)),
    (exits.NOT_FOUND, ("approve", NOWHERE)),
    (exits.NOT_FOUND, ("reject", NOWHERE)),
    (exits.NOT_FOUND, ("verify", NOWHERE)),
    (exits.NOT_FOUND, ("state", NOWHERE, "--at", "1")),
    (exits.USAGE, ("state", NOWHERE)),
    (exits.USAGE, ("state", NOWHERE, "--at", "yesterday")),
    (exits.USAGE, ("state", NOWHERE, "--at", "0")),
    (exits.USAGE, ("state", NOWHERE, "--at", "99999999999")),
    (exits.USAGE, ("state", NOWHERE, "--at", "2026-01-01T00:00:00")),
    (exits.USAGE, ("submit",)),
    (exits.USAGE, ("submit", "")),
    (exits.USAGE, ("submit", "k\x00d")),
    (exits.USAGE, ("submit", "k\x1b[2J")),
    (exits.USAGE, ("submit", "k\udcff")),
    (exits.USAGE, ("submit", "k" * 201)),
    (exits.USAGE, ("submit", "parse", "{not json")),
    (exits.USAGE, ("submit", "parse", "a=1", "stray")),
    (exits.USAGE, ("submit", "parse", "a=1", "a=2")),
    (exits.USAGE, ("submit", "parse", "a:=")),
    (exits.USAGE, ("submit", "parse", "a:=NaN")),
    (exits.USAGE, ("submit", "parse", "a:=-Infinity")),
    (exits.USAGE, ("submit", "parse", "a:=1e999")),
    (exits.USAGE, ("submit", "parse", "NaN")),
    (exits.USAGE, ("submit", "parse", '{"a": 1, "a": 2}')),
    (exits.USAGE, ("submit", "parse", "[" * 100_000)),
    (exits.USAGE, ("submit", "parse", "[" * 40 + "]" * 40)),
    (exits.USAGE, ("submit", "parse", "9" * 5_000)),
    (exits.USAGE, ("submit", "parse", "a=\x00")),
    (exits.USAGE, ("submit", "parse", 'a:="\\u0000"')),
    (exits.USAGE, ("submit", "parse", 'a:="\\ud800"')),
    (exits.USAGE, ("submit", "parse", "a=" + "x" * 70_000)),
    (exits.USAGE, ("submit", "parse", "--priority", "-1")),
    (exits.USAGE, ("submit", "parse", "--priority", "1.5")),
    (exits.USAGE, ("submit", "parse", "--priority", str(2**31))),
    (exits.USAGE, ("submit", "parse", "--delay", "-5")),
    (exits.USAGE, ("submit", "parse", "--delay", "nan")),
    (exits.USAGE, ("submit", "parse", "--delay", "inf")),
    (exits.USAGE, ("submit", "parse", "--delay", "9" * 400)),
    (exits.USAGE, ("submit", "parse", "--delay", "soon")),
    (exits.USAGE, ("submit", "parse", "--deadline", "2026-13-01T00:00:00Z")),
    (exits.USAGE, ("submit", "parse", "--deadline", "2100-01-01T00:00:00")),
    (exits.USAGE, ("submit", "parse", "--max-attempts", "0")),
    (exits.USAGE, ("submit", "parse", "--max-attempts", "1001")),
    (exits.USAGE, ("submit", "parse", "--key", "")),
    (exits.USAGE, ("submit", "parse", "--tag", "")),
    (exits.USAGE, ("submit", "parse", "--tag", "t\x00g")),
    (exits.USAGE, ("submit", "parse", *("--tag",), *("--tag=t",) * 51)),
    (exits.USAGE, ("project", "create", "Not A Name")),
    (exits.USAGE, ("project", "create", "")),
    (exits.USAGE, ("project", "create", "a\x00b")),
    (exits.USAGE, ("bogus",)),
    (exits.USAGE, ("db", "bogus")),
    (exits.USAGE, ("runs", "--bogus")),
    (exits.USAGE, ("runs", "--project", "NO PE")),
    (exits.USAGE, ("drift", "--watch", "--every", "0")),
    (exits.USAGE, ("trace", NOWHERE, "--after", "1-2")),
    (exits.USAGE, ("worker", "tests.support.handlers:")),
    (exits.USAGE, ("cancel", NOWHERE, "--actor", "ann ")),
    (exits.USAGE, ("roles", "grant", "finance", " ann")),
    (exits.USAGE, ("cancel",)),
    (exits.USAGE, ("verify", "a", "b")),
    (exits.USAGE, ("verify", "--bundle", "x" * 300)),
]


def test_nonsense_is_one_line_and_writes_nothing(cli: Cli, subtests: pytest.Subtests) -> None:
    for code, words in NONSENSE:
        with subtests.test(words=words):
            answer = cli.fails(code, *words)

            assert all(char == "\n" or char.isprintable() for char in answer.err)
            assert len(answer.err) < 600
            cli.fails(code, *words, "--json")
    assert events_in(cli) == 0


MISFITS = {
    ("drift", "--repair", "--reason", "x", "--watch"): "cannot be combined with --repair",
    ("drift", "--repair"): "--repair needs a reason",
    ("projections", "skip", "p", "--reason", "x", "--run", NOWHERE): "only together",
    ("runs", "--watch"): "needs a terminal",
    ("verify", NOWHERE, "--bundle", "."): "is not named with --bundle",
    ("cancel", "--query", "kind:a"): "a query needs one; it is recorded",
    ("rerun", NOWHERE, "--query", "kind:a"): "give either runs, or --query",
    ("users", "add", "ann", "--issuer", "https://id.example"): "must come with --subject",
    ("trace", NOWHERE, "--after", "start"): "needs --follow",
    ("webhooks", "run", "--console", "nonsense"): "nonsense is not a URL",
}


def test_options_that_do_not_go_together_are_named(cli: Cli, subtests: pytest.Subtests) -> None:
    for words, why in MISFITS.items():
        with subtests.test(words=words):
            assert why in cli.fails(exits.USAGE, *words).err
    assert events_in(cli) == 0


@pytest.mark.parametrize("name", ["a\0b", "\udc80"])
@pytest.mark.parametrize(
    "words",
    [
        ("access", "list"),
        ("access", "revoke"),
        ("projections", "run"),
        ("projections", "pause"),
    ],
)
def test_a_name_that_postgresql_cannot_store_is_named(
    cli: Cli, words: tuple[str, ...], name: str
) -> None:
    contains = "NUL" if "\0" in name else "a lone surrogate"

    assert f"contains {contains}" in cli.fails(exits.USAGE, *words, name).err


def test_a_host_that_can_be_no_name_is_named(cli: Cli) -> None:
    for host in ("\udc80", "x" * 300):
        said = cli.fails(exits.ERROR, "metrics", "--host", host).err
        assert "give another --host" in said


def test_a_number_that_is_no_socket_is_named(cli: Cli) -> None:
    for number in ("99", "9" * 30):
        said = cli.fails(exits.USAGE, "serve", "--socket", number).err
        assert "is not a socket of this process" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("users", "disable", "nobody"), "nobody is not a user who may sign in"),
        (("access", "revoke-token", "nothing"), "nothing is not a token in use"),
    ],
)
def test_what_changes_nothing_does_not_end_as_a_success(
    cli: Cli, words: tuple[str, ...], said: str
) -> None:
    answer = cli(*words)
    assert (answer.code, answer.out) == (exits.ERROR, "")
    assert said in answer.err


def test_a_json_error_has_its_type_message_and_data(cli: Cli) -> None:
    error = cli.fails(exits.USAGE, "submit", "parse", "--priority", "-1", "--json").error

    assert set(error) == {"type", "message", "name", "value", "remedy"}
    assert (error["type"], error["name"], error["value"]) == ("InvalidValue", "priority", -1)


def test_json_before_or_after_the_command_is_the_same(cli: Cli) -> None:
    assert cli("--json", "show", NOWHERE) == cli("show", NOWHERE, "--json")
    assert cli("--json", "runs", "--bogus").error["type"] == "Usage"


def test_an_actor_and_a_reason_are_checked(cli: Cli) -> None:
    run_id = str(cli.submitted())

    cli.fails(exits.USAGE, "cancel", run_id, "--actor", "")
    cli.fails(exits.USAGE, "cancel", run_id, "--actor", "a" * 201)
    cli.fails(exits.USAGE, "cancel", run_id, "--reason", "\x00")
    cli.fails(exits.USAGE, "cancel", run_id, "--reason", "x" * 70_000)

    assert events_in(cli) == 1


def test_the_demo_takes_no_other_database(cli: Cli) -> None:
    failed = cli.fails(exits.USAGE, "demo")  # which is given the test's own --url

    assert "--url" in failed.err
    assert "leave it out" in failed.err


def test_settings_that_contradict_each_other_are_an_error(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNFOLD_LEASE_TTL_SECONDS", "1")

    assert "RUNFOLD_HEARTBEAT_SECONDS" in cli.fails(exits.ERROR, "runs").err


def test_production_refuses_the_built_in_database(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNFOLD_ENV", "production")

    assert main(["runs"]) == exits.ERROR
    assert "RUNFOLD_URL" in capsys.readouterr().err


def test_a_defect_is_one_line_and_with_verbose_a_traceback(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by\nzero")

    monkeypatch.setattr("runfold.console.cli.kit.session.Session.ledger", broken)

    assert "unexpected ZeroDivisionError: by zero" in cli.fails(exits.ERROR, "runs").err
    assert cli.fails(exits.ERROR, "runs", "--json").error["type"] == "ZeroDivisionError"
    assert main(["runs", "--verbose"]) == exits.ERROR
    assert "Traceback" in capsys.readouterr().err


def test_a_home_that_is_a_file_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "home").touch()
    monkeypatch.setenv("RUNFOLD_HOME", str(tmp_path / "home"))

    assert main(["runs"]) == exits.ERROR
    assert f"cannot use {tmp_path / 'home'}: " in capsys.readouterr().err


# -- databases that cannot be used -----------------------------------------------------------------

COMMANDS = (
    ("submit", "parse"),
    ("runs",),
    ("show", NOWHERE),
    ("state", NOWHERE, "--at", "1"),
    ("history", NOWHERE),
    ("cancel", NOWHERE),
    ("approve", NOWHERE),
    ("reject", NOWHERE),
    ("reap", "--once"),  # as a duty it waits for its database
    ("verify",),
    ("project", "create", "acme"),
    ("project", "list"),
)
ON_THE_DATABASE = (("db", "upgrade"), ("db", "status"), ("db", "url"))


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("postgresql://nobody:s3cret@127.0.0.1:1/nowhere", exits.ERROR),
        ("postgresql:///nowhere?host=/nonexistent", exits.ERROR),
        ("mysql://root@localhost/test", exits.USAGE),
        ("nonsense", exits.USAGE),
        ("postgresql://127.0.0.1:port/test", exits.USAGE),
    ],
)
def test_a_database_that_is_not_there_is_one_line(
    capsys: pytest.CaptureFixture[str], url: str, code: int
) -> None:
    cli = Cli(url, capsys)

    for words in (*COMMANDS, *ON_THE_DATABASE):
        assert "s3cret" not in cli.fails(code, *words).err
    assert cli.fails(code, "runs", "--json").error["type"] in {
        "DatabaseUnavailable",
        "InvalidValue",
    }


def test_doctor_finds_that_the_database_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    answer = Cli("postgresql://127.0.0.1:1/nowhere", capsys)("doctor", "--json")

    assert answer.code == exits.UNHEALTHY
    (check,) = answer.json["checks"]
    assert (check["name"], check["level"]) == ("database", "failed")


def test_a_database_without_the_schema_is_one_line_and_stays_as_it_was(
    empty_database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cli = Cli(empty_database, capsys)

    for words in COMMANDS:
        assert "runfold db upgrade" in cli.fails(exits.ERROR, *words).err
    assert cli.fails(exits.ERROR, "runs", "--json").error["type"] == "NotMigrated"
    assert execute(cli.url, "SELECT 1 FROM pg_namespace WHERE nspname = 'ledger'") == []


def test_a_newer_schema_is_one_line_and_stays_as_it_was(
    unverified_database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cli = Cli(unverified_database, capsys)
    execute(cli.url, "UPDATE ledger.alembic_version SET version_num = '9999'")

    for words in (*COMMANDS, ("db", "upgrade")):
        assert "install a newer runfold" in cli.fails(exits.ERROR, *words).err
    error = cli.fails(exits.ERROR, "db", "upgrade", "--json").error
    assert (error["type"], error["found"]) == ("NewerSchema", "9999")
    assert cli.ok("db", "status", "--json").json["newer"] is True

    assert events_in(cli) == 0
    assert [
        tuple(row) for row in execute(cli.url, "SELECT version_num FROM ledger.alembic_version")
    ] == [("9999",)]
    assert [tuple(row) for row in execute(cli.url, "SELECT project_id FROM ledger.project")] == [
        ("test",)
    ]


def test_a_login_without_the_right_is_one_line(
    unverified_database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    login = f"reader_{uuid.uuid4().hex[:12]}"
    execute(unverified_database, f"CREATE ROLE {login} LOGIN PASSWORD 'pw' IN ROLE runfold_reader")
    rights = f"'test', 'tests', '{login}', '{{read}}', NULL, NULL, NULL"
    execute(unverified_database, f"SELECT ledger.change_access({rights})")
    try:
        url = as_login(unverified_database, login, "pw")
        reader = Cli(url, capsys)
        assert reader.ok("runs").out == ""
        assert (
            reader.fails(exits.ERROR, "submit", "parse", "--json").error["type"] == "AccessDenied"
        )
        denied = reader("access", "check", "submit")
        assert (denied.code, denied.out) == (exits.ERROR, "")
        assert "lacks the right submit" in denied.err
        checks = reader.ok("doctor", "--json").json["checks"]
        assert [c["level"] for c in checks if c["name"] == "privileges"] == ["ok"]
    finally:
        execute(unverified_database, f"DROP OWNED BY {login}")
        execute(unverified_database, f"DROP ROLE {login}")


def test_every_exit_code_is_documented(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == exits.OK
    shown = " ".join(capsys.readouterr().out.split())

    for code, meaning in exits.MEANINGS.items():
        assert f"{code} {meaning}" in shown
    codes = {
        value for name, value in vars(exits).items() if name.isupper() and isinstance(value, int)
    }
    assert codes == set(exits.MEANINGS)


def test_help_wraps_each_paragraph_by_itself_and_lists_commands_by_their_first(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    main(["worker", "--help"])
    _usage, first, second, *_ = capsys.readouterr().out.split("\n\n")
    assert first == "Run a worker until SIGTERM or Ctrl-C."
    lines = second.splitlines()
    assert all(60 < len(line) <= 80 and line[0] != " " for line in lines[:-1])
    main(["db", "--help"])
    listed = capsys.readouterr().out
    assert "Upgrade the database to this program's schema.\n  status" in listed


def test_no_command_is_help_and_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == exits.USAGE
    assert "Exit codes" in capsys.readouterr().out


def test_the_error_of_a_value_that_json_has_not_is_still_json(cli: Cli) -> None:
    answer = cli.fails(exits.USAGE, "submit", "parse", "a:=1e999", "--json")

    assert json.loads(answer.err, parse_constant=pytest.fail)["error"]["value"] == "inf"
