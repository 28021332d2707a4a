"""The services of the compose file and the units of systemd do what they say, on a real server."""

from __future__ import annotations

import asyncio
import configparser
import os
import secrets
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import yaml  # type: ignore[import-untyped]

from runfold import Ledger
from runfold.ledger.names import ACCESS_HOLES
from runfold.ledger.postgres.embedded.programs import find_programs
from runfold.ledger.postgres.urls import driver_url
from tests.support.databases import copy_of, with_database
from tests.support.logins import as_login
from tests.support.server import Server
from tests.support.waiting import BOUND

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
LOGINS = ROOT / "deploy" / "logins.sql"
UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
APP = """
from runfold import Context, handler


@handler("double")
async def double(ctx: Context, number: int) -> int:
    return 2 * number
"""


@pytest.fixture(scope="module")
def served(
    server: Server, maintenance: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """The environment of the services on a migrated database, with a program in its folder."""
    name, make, drop = copy_of("template0")
    url, folder = with_database(server.url, name), tmp_path_factory.mktemp("deployed")
    (folder / "app.py").write_text(APP)
    path = f"{Path(sys.executable).parent}:{find_programs()}:{os.environ['PATH']}"
    environment = {"PATH": path, "HOME": str(folder), "RUNFOLD_ENV": "production"}
    maintenance(make)
    migrated(environment | {"RUNFOLD_URL": url})
    # Twice, as every `up` does; the login keeps its password.
    yield migrated(environment | {"RUNFOLD_URL": url})
    asyncio.run(drop_login(url))
    maintenance(drop)


async def drop_login(url: str) -> None:
    """Take away the login of the services: it is of the whole server."""
    connection = await asyncpg.connect(driver_url(url))
    await connection.execute("DROP OWNED BY app; DROP ROLE app")
    await connection.close()


def migrated(environment: dict[str, str]) -> dict[str, str]:
    """Run what comes before a worker; return the environment of the services after it."""
    url, password = environment["RUNFOLD_URL"], secrets.token_hex(8)
    logins, migrate = (COMPOSE["services"][name] for name in ("logins", "migrate"))
    words = [word.replace("/logins.sql", str(LOGINS)) for word in logins["entrypoint"]]
    asked = {name: password for name in logins["environment"] if name == "RUNFOLD_APP_PASSWORD"}
    for program, more in ([*words, url], asked), (migrate["entrypoint"], {}):
        done = subprocess.run(
            program, env=environment | more, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    return environment | {"RUNFOLD_URL": as_login(url, "app", password)}


def started(words: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
    """Start a service in the folder of the program."""
    return subprocess.Popen(
        words, env=environment, cwd=environment["HOME"], stderr=subprocess.PIPE, text=True
    )


def ends_well(process: subprocess.Popen[str]) -> None:
    """Fail unless the service found no hole in access, and ends by SIGTERM without an error."""
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=BOUND)
    assert process.returncode in {0, -signal.SIGTERM}, said
    assert ACCESS_HOLES not in said


@pytest.mark.slow
def test_the_services_migrate_work_and_reap(served: dict[str, str]) -> None:
    running = [
        started(["runfold", *COMPOSE["services"][name]["command"]], served)
        for name in ("worker", "reaper")
    ]
    try:
        assert asyncio.run(doubled(served["RUNFOLD_URL"], 21)) == 42
    finally:
        for process in running:
            ends_well(process)


@pytest.mark.slow
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_starts_and_ends(unit: Path, served: dict[str, str]) -> None:
    service = configparser.ConfigParser(strict=False, interpolation=None)
    service.read(unit)
    words = shlex.split(service["Service"]["ExecStart"])
    process = started([Path(words[0]).name, *words[1:]], served)
    assert process.stderr is not None
    assert any("Ctrl-C ends it" in line for line in process.stderr)
    ends_well(process)


async def doubled(url: str, number: int) -> Any:
    """Return what a worker makes of a run."""
    async with Ledger.open(url) as ledger:
        run = await ledger.submit("double", number)
        async with asyncio.timeout(BOUND):
            while not run.is_terminal:
                await asyncio.sleep(0.05)
                run = await ledger.get(run.run_id)
        return run.output


def test_the_image_has_every_extra() -> None:
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    extras = (ROOT / "pyproject.toml").read_text().partition("[project.optional-dependencies]")[2]
    names = [line.split(" =")[0] for line in extras.partition("\n\n")[0].splitlines() if line]

    assert f"[{','.join(names)}]" in dockerfile
