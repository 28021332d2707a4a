"""The version is said in one place, and every other place agrees with it."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import version

import pytest

import runfold
from tests.packaging.conftest import ROOT, Distribution, run


def test_the_project_takes_its_version_from_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())

    assert "version" not in project["project"]
    assert project["tool"]["hatch"]["version"]["path"] == "src/runfold/version.py"
    assert version("runfold") == runfold.__version__


def test_the_newest_heading_of_the_changelog_is_the_version() -> None:
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)

    assert headings[0] == runfold.__version__


@pytest.mark.slow
def test_the_wheel_its_package_and_its_command_say_the_same(distribution: Distribution) -> None:
    said = run(distribution.python, "-c", "import runfold; print(runfold.__version__)")

    assert said.strip() == runfold.__version__
    assert run(distribution.command, "--version") == f"runfold {runfold.__version__}\n"
    assert distribution.wheel.name.startswith(f"runfold-{runfold.__version__}-")
