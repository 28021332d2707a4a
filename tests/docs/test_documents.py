"""What the documents say is true: every command and snippet runs, every link leads somewhere."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from runfold.console.cli.main import main
from runfold.ledger import Ledger
from runfold.ledger.postgres import schema
from runfold.ledger.postgres.embedded.postgres import EmbeddedPostgres
from runfold.ledger.settings import Settings
from tests.support import forked
from tests.support.forked import Forked
from tests.support.server_folder import open_folder
from tests.support.waiting import BOUND

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "CHANGELOG.md",
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]


def blocks(language: str) -> list[str]:
    """Every fenced block of a language, in all pages."""
    return [
        block
        for page in PAGES
        for block in re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)
    ]


def commands() -> list[str]:
    """Every command line of the console blocks."""
    return [
        line[2:]
        for block in blocks("console")
        for line in block.splitlines()
        if line.startswith("$ ")
    ]


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    """A fresh home for the built-in PostgreSQL, as a new user has it."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("RUNFOLD_")}
    # Kept running: with the last command that uses it, the server would stop, and start again with
    # the next.
    with open_folder() as home, EmbeddedPostgres(home / "store") as postgres:
        asyncio.run(_one_run(postgres.url()))
        yield {**kept, "RUNFOLD_HOME": str(home / "store")}


async def _one_run(url: str) -> None:
    """Complete one run: a snippet that reads what there is must not depend on the others."""
    await schema.upgrade(url)
    async with Ledger.open(url, "default", create_project=True) as ledger:
        await ledger.submit("refund")
        [lease] = await ledger.claim("docs")
        await ledger.transition(lease, "completed")


@pytest.mark.slow
def test_every_console_command_works(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    given = [command for command in commands() if command.startswith("runfold ")]
    program = [sys.executable, "-m", "runfold.console.cli.entry"]

    assert given
    for command in given:
        if command.startswith(("runfold worker ", "runfold up", "runfold demo --web")):
            words = shlex.split(command)[1:]
            if not command.startswith("runfold worker "):
                words += ["--port", "0", "--no-browser"]  # other tests may run at the same time
            assert_works_until_told_to_stop([*program, *words], environment)
            continue
        # In this process, which saves the start of another for each command.
        with monkeypatch.context() as here:
            here.chdir(ROOT)
            here.setenv("RUNFOLD_HOME", environment["RUNFOLD_HOME"])
            code = main(shlex.split(command)[1:])
        structlog.reset_defaults()
        assert code == 0, (command, capfd.readouterr())


def assert_works_until_told_to_stop(words: list[str], environment: dict[str, str]) -> None:
    with Forked[str](
        words, env=environment, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stderr is not None
        assert any("Ctrl-C ends it" in line for line in process.stderr)
        process.send_signal(signal.SIGTERM)
        assert process.wait(BOUND) == 0, process.stderr.read()


def test_every_make_command_exists_and_the_main_ones_are_run_by_ci() -> None:
    makefile = (ROOT / "Makefile").read_text()
    named = {command.split()[1] for command in commands() if command.startswith("make ")}
    named |= {
        target for page in PAGES for target in re.findall(r"`make ([a-z]+)`", page.read_text())
    }

    assert {target for target in named if f"\n{target}:" not in makefile} == set()
    ci = (ROOT / ".ci" / "run").read_text()
    assert all(f"make {target}" in ci for target in ("check", "docs", "test", "demo"))


@pytest.mark.slow
@pytest.mark.parametrize("snippet", blocks("python"))
def test_every_python_snippet_works(snippet: str, environment: dict[str, str]) -> None:
    done = forked.run([sys.executable, "-W", "error", "-c", snippet], env=environment, cwd=ROOT)

    assert done.returncode == 0, done.stderr
    assert "run.completed" in done.stdout or "Ledger.open" not in snippet


def test_every_link_leads_to_a_file() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_line_of_a_page_is_longer_than_100_columns(page: Path) -> None:
    free = ("|", "http")  # a row of a table and an address cannot be wrapped

    assert [
        line
        for line in page.read_text().splitlines()
        if len(line) > 100 and not line.startswith(free)
    ] == []


def test_no_line_of_sql_or_of_a_template_is_longer_than_100_columns() -> None:
    files = [
        *(ROOT / "console").rglob("*.html"),
        *(ROOT / "ledger" / "sql").rglob("*.sql"),
        *(ROOT / "migrations" / "versions").glob("*.sql"),
    ]
    long = [
        f"{path.name}: {line}"
        for path in files
        for line in path.read_text().splitlines()
        if len(line) > 100
    ]

    assert long == []


def test_the_journey_names_the_steps_that_a_claim_has() -> None:
    journey = (ROOT / "docs" / "explanation" / "journey-of-a-run.md").read_text()
    statement = (ROOT / "ledger" / "sql" / "operations" / "claim.sql").read_text()
    told = journey.partition("3. **[claim.sql]")[2].partition("4. **")[0]
    steps = re.findall(r"`([a-z_]+)`", told)

    assert len(steps) >= 5
    assert [step for step in steps if not re.search(rf"\b{step}\b", statement)] == []


def test_the_settings_page_lists_every_setting() -> None:
    listed = set(
        re.findall(
            r"`RUNFOLD_([A-Z_]+)`", (ROOT / "docs" / "reference" / "settings.md").read_text()
        )
    )

    # TOKEN is read by one command alone, and is no setting of a process.
    assert listed - {"TOKEN"} == {name.upper() for name in Settings.model_fields}


@pytest.mark.parametrize("sql_block", blocks("sql"))
async def test_every_sql_block_works(ledger: Ledger, sql_block: str) -> None:
    statements = [part.strip() for part in sql_block.replace("'default'", "'test'").split(";\n")]
    rows = [await ledger.pool.fetch(statement) for statement in statements if statement]

    assert all(rows), "a statement found nothing"
    assert rows[-1][-1]["type"] == "run.completed"
