"""Output: no payload, name or error steers a terminal or forges a line."""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest
import structlog

from runfold.console.cli.kit.session import configure_log
from runfold.console.cli.main import Program
from runfold.console.shared.plain import clean, safe_json
from runfold.ledger import Ledger, State
from runfold.ledger.errors import LedgerError
from runfold.projections import CatchUp, Projection, field, install, last, of_run
from tests.support.console import Cli
from tests.support.runs import claimed, waiting

EVIL: Final = "\x1b]52;c;aGk=\x07\n[red]FORGED \x9b31m\u202e\u2028\x7f"
FORGED: Final = ("FORGED", "[red]FORGED")
COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")
WRITING: Final = {"print", "sys.stdout.write", "sys.stderr.write"}
CONSOLE: Final = Path(__file__).parents[2] / "console"

TABLES: Final = """
SELECT c.oid::regclass::text AS name FROM pg_class AS c
WHERE c.relnamespace = 'ledger'::regnamespace AND c.relkind IN ('r', 'p')
"""
CHECKS: Final = """
SELECT k.conrelid::regclass::text AS name, k.conname FROM pg_constraint AS k
WHERE k.connamespace = 'ledger'::regnamespace AND k.contype IN ('c', 'f') AND k.conparentid = 0
"""
COLUMNS: Final = """
SELECT a.attrelid::regclass::text AS name, a.attname FROM pg_attribute AS a
JOIN pg_class AS c ON c.oid = a.attrelid
WHERE c.relnamespace = 'ledger'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND a.attnum > 0 AND NOT a.attisdropped AND a.atttypid IN ('text'::regtype, 'varchar'::regtype)
  AND a.attname IN ('kind', 'name', 'worker_id', 'error_code', 'actor', 'reason', 'role', 'member',
                    'key', 'error', 'file', 'release', 'digest', 'definition', 'snapshot')
"""

RECORD: Final = """
INSERT INTO ledger.archive_event (project_id, number, recorded_at, type, actor, reason, month,
  first, beyond, runs, events, payloads, generation, last_position, size_bytes, sha256, file)
VALUES ('*', 9, now(), 'archive.exported', 'ann', 'why', '2025-12', gen_random_uuid(),
  gen_random_uuid(), 1, 1, 1, 1, 1, 1, '', '/nowhere/')
"""
FAILING: Final = Projection(
    "failing",
    key={"kind": of_run("kind")},
    columns={"newest": last(field("path", "int"))},
)


@pytest.fixture
def cli(unverified_database: str, capsys: pytest.CaptureFixture[str]) -> Cli:
    """The program on a database that the test damages."""
    return Cli(unverified_database, capsys)


async def poisoned(ledger: Ledger) -> dict[str, str]:
    """Make runs, then put what steers a terminal into every name."""
    failed = await claimed(ledger, "w:1", input={"evil": EVIL}, key="k", tags=["t"])
    await ledger.transition(
        failed, State.FAILED, error_code="E-X", error_detail={"traceback": EVIL}
    )
    asked = await waiting(ledger, State.WAITING_APPROVAL, park=True)
    held = await claimed(ledger, "w:3")
    retried = await claimed(ledger, "w:2")
    await ledger.retry(retried, error_code="E-Y", error_detail=EVIL)
    await ledger.schedule("nightly", "parse", {"evil": EVIL}, cron="0 3 * * *")
    await ledger.webhooks.add("https://example.com", events=["run.failed"])
    await ledger.pause_kind("parse", reason="a reason")
    await ledger.archive.hold("2026-01", reason="a reason")
    await install(ledger.pool, FAILING)
    with suppress(LedgerError):
        await CatchUp(ledger.pool, FAILING).to_the_end()
    async with ledger.pool.acquire() as connection:
        for table in await connection.fetch(TABLES):
            await connection.execute(f"ALTER TABLE {table['name']} DISABLE TRIGGER ALL")
        for check in await connection.fetch(CHECKS):
            await connection.execute(
                f'ALTER TABLE {check["name"]} DROP CONSTRAINT IF EXISTS "{check["conname"]}"'
            )
        await connection.execute(RECORD)
        await connection.execute(
            f'CREATE FUNCTION ledger."planted{EVIL}"() RETURNS int LANGUAGE sql AS $$ SELECT 1 $$'
        )
        for column in await connection.fetch(COLUMNS):
            name = column["attname"]
            await connection.execute(f"UPDATE {column['name']} SET {name} = {name} || $1", EVIL)
    leases = {"failed": failed, "asked": asked, "held": held, "retried": retried}
    return {name: str(lease.run_id) for name, lease in leases.items()}


def calls(runs: dict[str, str]) -> Iterator[tuple[str, ...]]:
    """Every command that prints what is in the ledger."""
    for run in runs.values():
        for words in (("show",), ("history",), ("state", "--at", "2"), ("diff", "--from", "1")):
            yield (words[0], run, *words[1:])
        yield ("trace", run)
        yield ("verify", run)
    yield from (
        ("runs",), ("runs", "--count"), ("workers",), ("approvals",),
        ("rerun", runs["failed"]), ("rerun", runs["held"], "--reason", EVIL),
        ("tail", "--after", "start", "--no-follow"), ("kinds", "list"),
        ("kinds", "history", "parse" + EVIL), ("schedules", "list"),
        ("schedules", "pause", EVIL, "--reason", EVIL), ("schedules", "run", EVIL, "--reason", "x"),
        ("schedules", "resume", EVIL, "--reason", EVIL), ("roles", "list"),
        ("roles", "history"), ("verify",), ("drift",), ("doctor",), ("whatif", "--ttl", "1s"),
        ("metrics", "--once"), ("serve", "--host", EVIL), ("project", "list"),
        ("projections", "list"), ("projections", "status"),
        ("projections", "status", "failing" + EVIL),
        ("projections", "show", "failing" + EVIL), ("projections", "drop", EVIL),
        ("projections", "skip", "failing", "--actor", EVIL, "--reason", EVIL),
        ("projections", "run", "nowhere:" + EVIL), ("archive", "list"), ("archive", "history"),
        ("archive", "history", EVIL), ("archive", "export", "2026-01", "--dry-run"),
        ("archive", "hold", "2026-01", "--reason", EVIL), ("archive", "detach", EVIL),
        ("archive", "release", EVIL, "--reason", "x"), ("archive", "check", EVIL),
        ("archive", "check", __file__), ("schedules", "add", EVIL, "k", "--cron", EVIL),
        ("roles", "grant", EVIL, EVIL), ("kinds", "limit", EVIL, "1"), ("drift", "--repair",
        "--actor", "ann", "--reason", "why"), ("state", EVIL, "--at", EVIL),
        ("whatif", "--ttl", EVIL), ("project", "create", EVIL), ("metrics", "--once", EVIL),
        ("reap", "--once"), ("runs", "--kind", EVIL), ("submit", EVIL), ("show", EVIL),
        ("approve", runs["asked"]), ("reject", runs["asked"], "--reason", "no"),
        ("snooze", runs["asked"], "--until", "1h", "--actor", EVIL), ("snooze", EVIL, "--undo"),
        ("snooze", runs["held"], "--until", EVIL), ("approvals", "--snoozed"),
        ("signal", runs["held"], "go"), ("cancel", runs["held"]), ("db", "status"),
        ("access", "list"), ("access", "grant", EVIL, "--rights", "read"), ("access", "history"),
        ("access", "grant", "w", "--rights", EVIL), ("access", "grant", "w", "--rights", "read",
        "--as", EVIL, "--reason", EVIL), ("access", "check", EVIL), ("access", "tokens"),
        ("access", "token", EVIL), ("access", "revoke", EVIL), ("access", "revoke-token", EVIL),
        ("access", "revoke", "w", "--reason", "left"), ("users", "list"), ("top",),
        ("access", "reads"), ("access", "reads", "--run", EVIL), ("users", "add", EVIL),
        ("access", "drop-reads", EVIL), ("access", "drop-reads", "2020-01-01", "--reason", EVIL),
        ("users", "add", "ann", "--issuer", EVIL, "--subject", EVIL), ("users", "sessions"),
        ("users", "password", EVIL), ("users", "disable", EVIL), ("users", "enable", EVIL),
        ("users", "end-session", EVIL),
        ("worker", "nowhere" + EVIL), ("up", "nowhere" + EVIL), ("projections", "pause", EVIL),
        (EVIL,), ("runs", EVIL), ("webhooks", "list"), ("mcp", EVIL),
        ("export", EVIL, "--to", EVIL),
        ("verify", "--bundle", EVIL), ("export", runs["failed"], "--to", "/dev/null/" + EVIL),
        ("webhooks", "add", "https://x/" + EVIL),
        ("webhooks", "resend", EVIL), ("webhooks", "remove", EVIL),
        ("webhooks", "deliveries", EVIL), ("webhooks", "add", "https://x", "--events", EVIL),
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "terminal"),
    [((), True), (("--json",), False), (("--verbose",), False)],  # a terminal has more escaped
    ids=["terminal", "json", "verbose"],
)
def test_no_command_prints_what_steers_a_terminal_or_forges_a_line(
    cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
    mode: tuple[str, ...],
    terminal: bool,  # noqa: FBT001  a parameter of the test
) -> None:
    runs = cli.given(poisoned)
    printed = 0
    for words in calls(runs):
        with monkeypatch.context() as patched:
            patched.setattr(sys.stdout, "isatty", lambda: terminal, raising=False)
            answer = cli(*words, *mode)
        for text in (answer.out, answer.err):
            plain = COLOUR.sub("", text) if terminal else text
            unsafe = {char for char in plain if not char.isprintable() and char != "\n"}
            assert not unsafe, (words, unsafe, plain)
            assert not any(line.startswith(FORGED) for line in plain.splitlines()), words
            squeezed = "".join(plain.split())  # a word without room is parted
            assert squeezed.count("FORGED") == squeezed.count("[red]FORGED"), words
            printed += "FORGED" in plain
    assert printed > len(runs) * 3  # the names are shown, in their escaped form
    assert {words[0] for words in calls(runs)} >= {entry.name for entry in Program.entries} - {
        "demo"
    }


def test_json_keeps_its_content_and_escapes_only_what_steers() -> None:
    text = safe_json({"text": EVIL + "ü\U000e0041"})

    assert text.isprintable()
    assert "ü" in text
    assert json.loads(text) == {"text": EVIL + "ü\U000e0041"}


@pytest.mark.parametrize("unseen", "\u034f\u115f\u1160\u2800\u3164\ufe0f\uffa0\U000e0100")
def test_nothing_that_leaves_no_ink_hides_in_a_name(unseen: str) -> None:
    """So that on an approval `ann` and another person do not look the same."""
    name = f"ann{unseen}"

    assert clean(name).isascii()
    assert safe_json(name).isascii()
    assert json.loads(safe_json(name)) == name


def test_a_symbol_may_be_an_emoji() -> None:
    assert clean("⚠\ufe0f Refund") == "⚠\ufe0f Refund"
    assert clean("a\ufe0f") == "a\\ufe0f"


def test_a_log_line_is_one_line_without_control_characters(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for as_json in (False, True):
        configure_log(as_json=as_json, verbose=True)
        structlog.get_logger().error(
            "handler_failed", exc_info=ValueError(EVIL), kind=EVIL, **{EVIL: EVIL}
        )
        structlog.reset_defaults()

        text = capsys.readouterr().err
        assert all(char.isprintable() or char == "\n" for char in text)
        assert "ValueError" in text
        assert not any(line.startswith(FORGED) and as_json for line in text.splitlines())


def test_only_the_output_module_and_the_program_itself_write_to_the_streams() -> None:
    allowed = {"output.py", "failure.py", "main.py"}
    writers = {
        path.name
        for path in CONSOLE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in WRITING
    }

    assert writers <= allowed
