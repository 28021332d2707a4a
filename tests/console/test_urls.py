"""Every form of URL on every road of the commands, and every command with the oddest of them."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from tests.ledger.postgres.test_roads import QUERIES, forms
from tests.support.console import Cli
from tests.support.front import certificate, front, server_context

ROADS = ("db upgrade", "db status", "project list", "show RUN")
"""The ways to the database that commands have: to its schema, to all projects and to one."""
COMMANDS = (
    *ROADS, "kinds list", "roles list", "schedules list", "projections list", "archive list",
    "tail --no-follow --after start", "reap --once", "cancel RUN", "verify", "doctor",
    "metrics --once", "db url", "kinds pause parse", "kinds resume parse",
    "roles grant finance ann", "schedules add nightly parse --cron 0_3_*_*_*", "runs",
    "history RUN", "state RUN --at 1", "diff RUN --from 1 --to 2", "trace RUN", "approvals",
    "workers", "rerun RUN", "drift", "whatif",
)  # fmt: skip


def call_each(cli: Cli, commands: Iterable[str]) -> None:
    """Submit a run and call each command, which must succeed."""
    run_id = str(cli.submitted())
    for command in commands:
        cli.ok(*(word.replace("_", " ").replace("RUN", run_id) for word in command.split()))


@pytest.mark.slow
def test_every_form_leads_commands_to_the_database(
    database: str, capsys: pytest.CaptureFixture[str], subtests: pytest.Subtests
) -> None:
    for form in (*QUERIES, "several hosts", "a socket's folder"):
        with subtests.test(form), front(database) as opened:
            made = forms(database, opened.port)
            if form not in made:
                pytest.skip("the server of this test run has no socket")

            call_each(Cli(made[form], capsys), ROADS)


@pytest.mark.slow
def test_a_password_of_odd_characters_over_tls_leads_every_command_to_the_database(
    database: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    if urlsplit(database).password or shutil.which("openssl") is None:
        pytest.skip("the server has a password of its own, or no openssl makes a certificate")
    made, key = certificate(tmp_path, "localhost")
    odd = "p@ss:w/rd?#&=% ünï"
    with front(database, tls=server_context(made, key), password=odd) as opened:
        where = f"localhost:{opened.port}/{opened.database}"
        cli = Cli(f"postgresql://postgres:{quote(odd, safe='')}@{where}?sslmode=require", capsys)

        call_each(cli, COMMANDS)

        assert opened.encrypted > len(COMMANDS)
        assert quote(odd, safe="") not in cli.ok("db", "status").out
