"""The services of the compose file in containers of the image that deploy/Dockerfile builds.

Needs a Docker engine and two images: RUNFOLD_TEST_DEPLOY and, of PostgreSQL, RUNFOLD_TEST_IMAGE.
There is no compose program where no registry is: its file is read, and each service is run with
its words, environment and volumes.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml  # type: ignore[import-untyped]

ROOT = Path(__file__).parents[2]
SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())[
    "services"
]
IMAGE = os.environ.get("RUNFOLD_TEST_DEPLOY", "")
POSTGRES = os.environ.get("RUNFOLD_TEST_IMAGE", "")
PASSWORD = "a password of the test"  # noqa: S105  of a server that lives as long as the test
APP = """
from runfold import Context, handler


@handler("double")
async def double(ctx: Context, number: int) -> int:
    return await ctx.step("double", lambda: 2 * number)
"""

pytestmark = pytest.mark.skipif(not (IMAGE and POSTGRES), reason="the images are built by .ci/run")


def docker(*words: str) -> str:
    """Run a Docker command; return its output, or fail with what it printed."""
    done = subprocess.run(["docker", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout.strip()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a program, which the image's own account may read."""
    (tmp_path / "app.py").write_text(APP)
    for part in (tmp_path, *tmp_path.parents[:2]):
        part.chmod(0o755)
    return tmp_path


@pytest.fixture
def postgres() -> Iterator[str]:
    """The address of the service `postgres`, once it answers."""
    given = _environment(SERVICES["postgres"], POSTGRES_DB="runfold")
    with _container(*given, POSTGRES) as name:
        address = docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", name)
        _until(lambda: "accepting" in _output(name, "pg_isready", "-h", address))
        yield address


def test_the_services_migrate_work_reap_and_end_by_a_signal(postgres: str, folder: Path) -> None:
    for name in ("logins", "migrate") * 2:  # every `up` runs them
        with _service(name, postgres, folder) as service:
            assert docker("wait", service) == "0", docker("logs", service)
    with (
        _service("worker", postgres, folder) as worker,
        _service("reaper", postgres, folder) as reaper,
    ):
        run_id = _output(worker, "runfold", "submit", "double", "21").splitlines()[0]
        _until(lambda: _shown(worker, run_id)["state"] == "completed")
        shown = _shown(worker, run_id)
        as_owner = _environment(SERVICES["migrate"])
        healthy = docker("exec", *as_owner, worker, "runfold", "verify")
        for name in (worker, reaper):
            docker("stop", "--time", "60", name)
            assert docker("inspect", "-f", "{{.State.ExitCode}}", name) == "0", docker("logs", name)

    assert shown["output"] == 42
    assert healthy.startswith("ok:")


@contextmanager
def _service(name: str, postgres: str, folder: Path) -> Iterator[str]:
    service = SERVICES[name]
    program, *entry = service.get("entrypoint", ["runfold"])
    volumes = [
        word
        for volume in service.get("volumes", ())
        for word in ("--volume", _absolute(volume.replace("${PWD}", str(folder))))
    ]
    image = POSTGRES if "postgres" in service.get("image", "") else IMAGE
    options = [*_environment(service), "--add-host", f"postgres:{postgres}", *volumes]
    words = [*options, "--entrypoint", program, image, *entry, *service.get("command", ())]
    with _container(*words) as container:
        yield container


@contextmanager
def _container(*words: str) -> Iterator[str]:
    name = f"runfold-{uuid4().hex[:12]}"
    docker("run", "--detach", "--name", name, *words)
    try:
        yield name
    finally:
        docker("rm", "--force", "--volumes", name)


def _absolute(volume: str) -> str:
    return f"{ROOT}/deploy/{volume[2:]}" if volume.startswith("./") else volume


def _environment(service: dict[str, Any], **more: str) -> list[str]:
    values = service["environment"] | more
    secret = PASSWORD.replace(" ", "%20")
    return [
        word
        for name, value in values.items()
        for word in (
            "--env",
            f"{name}="
            + re.sub(r"\$\{\w+:\?set it\}", secret if "://" in value else PASSWORD, value),
        )
    ]


def _output(container: str, *words: str) -> str:
    done = subprocess.run(
        ["docker", "exec", container, *words], capture_output=True, text=True, check=False
    )
    return done.stdout


def _shown(container: str, run_id: str) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(_output(container, "runfold", "show", run_id, "--json"))
    return shown


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.2)
