"""The services of the compose file and the units of systemd do what they say, on a real server."""

from __future__ import annotations

import asyncio
import configparser
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from runfold import Ledger
from tests.support.server import Server
from tests.support.waiting import BOUND

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
APP = """
from runfold import Context, handler


@handler("double")
async def double(ctx: Context, number: int) -> int:
    return 2 * number
"""


@pytest.fixture
def environment(server: Server, empty_database: str, tmp_path: Path) -> dict[str, str]:
    """The environment of a service, with a program of its own in the folder."""
    (tmp_path / "app.py").write_text(APP)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {"PATH": path, "HOME": str(tmp_path), "RUNFOLD_URL": empty_database}


def started(words: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
    """Start a service in the folder of the program."""
    return subprocess.Popen(
        words, env=environment, cwd=environment["HOME"], stderr=subprocess.PIPE, text=True
    )


def ends_well(process: subprocess.Popen[str]) -> None:
    """Fail unless the service ends by SIGTERM without an error."""
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=BOUND)
    assert process.returncode in {0, -signal.SIGTERM}, said


@pytest.mark.slow
def test_the_services_migrate_work_and_reap(environment: dict[str, str]) -> None:
    services = COMPOSE["services"]
    for _ in range(2):  # every `up` runs it
        migrating = subprocess.run(
            services["migrate"]["entrypoint"], env=environment, capture_output=True, check=False
        )
        assert migrating.returncode == 0, migrating.stderr
    running = [
        started(["runfold", *services[name]["command"]], environment)
        for name in ("worker", "reaper")
    ]
    try:
        assert asyncio.run(doubled(environment["RUNFOLD_URL"], 21)) == 42
    finally:
        for process in running:
            ends_well(process)


@pytest.mark.slow
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_starts_and_ends(unit: Path, environment: dict[str, str]) -> None:
    subprocess.run(
        COMPOSE["services"]["migrate"]["entrypoint"], env=environment, check=True,
        capture_output=True,
    )  # fmt: skip
    service = configparser.ConfigParser(strict=False, interpolation=None)
    service.read(unit)
    words = shlex.split(service["Service"]["ExecStart"])
    process = started([Path(words[0]).name, *words[1:]], environment)
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
