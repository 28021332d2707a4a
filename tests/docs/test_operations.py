"""The pages on running a fleet: their statements, files and programs work on real servers."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import asyncpg
import pytest

from runfold import Ledger
from runfold.ledger import access
from runfold.ledger.postgres import schema
from runfold.ledger.postgres.embedded.programs import find_programs
from runfold.ledger.postgres.urls import driver_url
from runfold.projections.telemetry.metrics import METRICS
from tests.support import pgbouncer
from tests.support.console import Cli
from tests.support.databases import with_database
from tests.support.logins import as_login
from tests.support.server import Server

pytestmark = pytest.mark.slow

HOWTO = Path(__file__).parents[2] / "docs" / "howto"
LOGINS = ("shop_worker", "shop_projector", "shop_reader", "shop_auditor")


def blocks(page: str, language: str) -> list[str]:
    """Return the fenced blocks of a language in a page."""
    return re.findall(rf"```{language}\n(.*?)```", (HOWTO / page).read_text(), re.DOTALL)


@pytest.fixture
def mark() -> str:
    """What makes the names of a test its own: roles belong to the whole server."""
    return f"_{uuid4().hex[:8]}"


@pytest.fixture
def own_names(maintenance: Callable[[str], None], mark: str) -> Iterator[Callable[[str], str]]:
    """Return what gives names of a page a mark; its roles and database are dropped at the end."""
    names = (*LOGINS, "runfold_owner")

    def marked(text: str) -> str:
        text = re.sub(r"\b(DATABASE) runs\b", rf"\1 runs{mark}", text)
        return re.sub(rf"\b({'|'.join(names)})\b", rf"\1{mark}", text)

    yield marked
    maintenance(f"DROP DATABASE IF EXISTS runs{mark} WITH (FORCE)")
    for name in names:
        maintenance(f"DROP ROLE IF EXISTS {name}{mark}")


def test_the_roles_of_the_page_read_and_call_and_write_no_table(
    server: Server,
    maintenance: Callable[[str], None],
    own_names: Callable[[str], str],
    mark: str,
) -> None:
    owner, logins, heads, listed, views, privileges = (
        own_names(block) for block in blocks("access.md", "postgresql")
    )
    for statement in owner.split(";\n")[:2]:
        maintenance(statement)
    url = with_database(server.url, f"runs{mark}")
    own_url = as_login(url, f"runfold_owner{mark}", "change-me")
    asyncio.run(schema.upgrade(own_url))
    maintenance(logins)

    rows = asyncio.run(_rows(url, privileges))
    assert [row["number"] for row in asyncio.run(_rows(own_url, heads))] == [2]
    assert asyncio.run(_rows(own_url, views)) == []
    members = {row["login"]: row["role"] for row in asyncio.run(_rows(url, listed))}

    assert [(row["reads"], row["writes"]) for row in rows] == [(True, False)] * 12
    assert {name: members[f"{name}{mark}"] for name in LOGINS} == {
        name: name.replace("shop", "runfold") for name in LOGINS
    }
    asyncio.run(_may_submit(url.replace("postgres@", f"shop_worker{mark}:change-me@", 1), own_url))


async def _rows(url: str, statement: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(driver_url(url))
    try:
        return await connection.fetch(statement)
    finally:
        await connection.close()


async def _may_submit(worker_url: str, owner_url: str) -> None:
    login = worker_url.split("//")[1].split(":", maxsplit=1)[0]
    async with Ledger.open(owner_url, "shop", create_project=True) as owner:
        await access.grant(owner.project, login, ["submit", "read"])
    async with Ledger.open(worker_url, "shop") as ledger:
        run = await ledger.submit("parse")
        assert [event.type for event in await ledger.history(run.run_id)] == ["run.submitted"]


@pytest.mark.skipif(pgbouncer.PROGRAM is None, reason="pgbouncer is not installed")
def test_a_worker_works_through_the_pooler_of_the_page(database: str, tmp_path: Path) -> None:
    [configuration], [_, settings, _] = blocks("pooler.md", "ini"), blocks("pooler.md", "text")
    with pgbouncer.pooled(database, configuration) as url:
        environment = dict(line.split("=", 1) for line in settings.split())
        (tmp_path / "app.py").write_text(APP)
        given = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), **environment}
        done = subprocess.run(
            [sys.executable, "app.py"],
            env=given | {"RUNFOLD_URL": url, "RUNFOLD_PROJECT": "test"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    assert "sslmode=disable" in environment["RUNFOLD_URL"]
    assert done.stdout == "42\n", done.stderr


APP = """
import asyncio

from runfold import Context, Ledger, Worker, handler


@handler("double")
async def double(ctx: Context, number: int) -> int:
    return await ctx.step("double", lambda: 2 * number)


async def main() -> None:
    async with Ledger.open() as ledger:
        run = await ledger.submit("double", 21)
        async with Worker(ledger, double):
            run = await ledger.wait(run.run_id)
        print(run.output)


asyncio.run(main())
"""


def test_a_dump_is_restored_and_checked_as_the_page_says(
    server: Server, maintenance: Callable[[str], None], database: str, mark: str, tmp_path: Path
) -> None:
    asyncio.run(_complete_a_run(database))
    maintenance(f"CREATE DATABASE restored{mark} TEMPLATE template0 ENCODING 'UTF8'")
    restored = with_database(server.url, f"restored{mark}")
    path = f"{find_programs()}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    given = {"PATH": path, "HOME": str(tmp_path), "RUNFOLD_URL": database}
    try:
        for script in blocks("backup.md", "bash"):
            done = subprocess.run(
                ["bash", "-e", "-c", script],
                env=given | {"RESTORED_URL": restored},
                cwd=tmp_path,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, (script, done.stdout, done.stderr)
    finally:
        maintenance(f"DROP DATABASE restored{mark} WITH (FORCE)")


async def _complete_a_run(url: str) -> None:
    async with Ledger.open(url, "default", create_project=True) as ledger:
        await ledger.submit("parse", "a.py")
        [lease] = await ledger.claim("worker-1")
        await ledger.complete(lease, output={"lines": 3})


def test_the_metrics_page_lists_every_metric_with_its_type_and_labels() -> None:
    page = (HOWTO.parent / "reference" / "metrics.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|(.*?)\| .+ \|$", page, re.MULTILINE)
    listed = {(name, type_, tuple(re.findall(r"\w+", labels))) for name, type_, labels in rows}

    known = {
        (f"{metric.name}_total" if metric.counts else metric.name,
         "counter" if metric.counts else "gauge", metric.labels)
        for metric in METRICS
    }  # fmt: skip
    assert listed == known | {("runfold_up", "gauge", ())}


def test_the_pooler_page_names_a_database_that_its_url_names() -> None:
    [configuration] = blocks("pooler.md", "ini")
    [_, settings, _] = blocks("pooler.md", "text")
    url = urlsplit(settings.splitlines()[0].partition("=")[2])

    assert f"{url.path[1:]} = " in configuration
    assert f"listen_port = {url.port}" in configuration
    assert parse_qs(url.query) == {"sslmode": ["disable"]}


def test_the_access_page_s_commands_run_as_it_says(
    database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cli = Cli(database, capsys, "shop")
    cli.ok("project", "create", "shop")
    token = ""
    commands = [
        line.split("#")[0].strip()
        for block in blocks("access.md", "text")
        for line in block.splitlines()
        if line.startswith("runfold ")
    ]

    for command in commands:
        words = shlex.split(command.replace("token:…", token))[1:]
        if words[:2] == ["--project", "shop"]:
            words = words[2:]
        answer = cli.ok(*words)
        if made := re.search(r"token:[0-9a-f]+", answer.err):
            token = token or made[0]

    assert token
    assert len(commands) >= 10
    assert "shop_worker in shop: read, schedule, submit, work" in cli.ok("access", "list").out
