"""What the wheel and the sdist hold, and that a user's own folders and Runfold's do not meet."""

from __future__ import annotations

import sys
import tarfile
import zipfile
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest

from runfold.ledger.postgres import revisions
from tests.packaging.conftest import ROOT, Distribution, run

pytestmark = pytest.mark.slow
INFO = f"runfold-{version('runfold')}.dist-info"
FOLDERS = ("ledger", "projections", "workers", "console")
PROGRAM = """
import console, ledger, projections, workers
import runfold.console, runfold.ledger, runfold.projections, runfold.workers
from runfold.ledger.postgres import revisions

HERE = __file__.rpartition("/")[0]
for mine in (console, ledger, projections, workers):
    assert list(mine.__path__) == [f"{HERE}/{mine.__name__}"], mine.__path__
for theirs in (runfold.console, runfold.ledger, runfold.projections, runfold.workers):
    assert not theirs.__file__.startswith(f"{HERE}/"), theirs.__file__
print(runfold.__file__)
print(revisions.head())
"""


def test_the_wheel_has_one_package_with_types_and_migrations(distribution: Distribution) -> None:
    names = zipfile.ZipFile(distribution.wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"runfold", INFO}
    assert {f"runfold/{folder}/py.typed" for folder in FOLDERS} | {"runfold/py.typed"} <= set(names)
    assert len(names) == len(set(names))
    files = {
        name.removeprefix("runfold/ledger/_migrations/")
        for name in names
        if name.startswith("runfold/ledger/_migrations/")
    }
    there = {
        str(path.relative_to(ROOT / "migrations"))
        for path in (ROOT / "migrations").rglob("*")
        if path.suffix in {".py", ".sql"}
    }
    assert files == there
    assert f"{INFO}/licenses/LICENSE" in names


def test_the_wheel_has_every_source_file_and_nothing_else(distribution: Distribution) -> None:
    names = set(zipfile.ZipFile(distribution.wheel).namelist())
    shipped = {
        name.removeprefix("runfold/")
        for name in names
        if name.startswith("runfold/") and "/_migrations/" not in name
    }
    there = {
        str(path.relative_to(ROOT))
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    face = {
        path.name
        for path in (ROOT / "src" / "runfold").iterdir()
        if path.is_file() and not path.is_symlink()
    }
    assert shipped == there | face


def test_the_sdist_has_the_folders_once(distribution: Distribution) -> None:
    with tarfile.open(distribution.sdist) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    assert len(names) == len(set(names))
    assert {f"{folder}/py.typed" for folder in FOLDERS} <= set(names)
    assert {"LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml"} <= set(names)
    assert not [name for name in names if name.startswith("tests/")]


@pytest.mark.parametrize("init", [True, False], ids=["packages", "plain folders"])
@pytest.mark.parametrize("install", ["wheel", "editable"])
def test_a_program_may_have_folders_of_all_four_names(
    distribution: Distribution, tmp_path: Path, install: str, *, init: bool
) -> None:
    for folder in FOLDERS:
        (tmp_path / folder).mkdir()
        if init:
            (tmp_path / folder / "__init__.py").touch()
    (tmp_path / "app.py").write_text(PROGRAM)
    python = distribution.python if install == "wheel" else Path(sys.executable)
    place, head = run(python, tmp_path / "app.py", cwd=tmp_path).split()
    expected = distribution.site if install == "wheel" else ROOT / "src"
    assert Path(place) == expected / "runfold" / "__init__.py"
    assert head == revisions.head()
    assert "submit" in run(python.with_name("runfold"), "--help", cwd=tmp_path)
    modules = "import runfold.console.cli.main as main; main.main()"
    assert "submit" in run(python, "-c", modules, "--help", cwd=tmp_path)


def test_the_installed_command_makes_and_upgrades_a_database(
    distribution: Distribution, empty_database: str, tmp_path: Path
) -> None:
    for words in (["db", "upgrade"], ["project", "create", "p"], ["--project", "p", "submit", "k"]):
        run(distribution.command, "--url", empty_database, *words, cwd=tmp_path)
    runs = run(distribution.command, "--url", empty_database, "--project", "p", "runs", "--json")
    assert '"pending"' in runs


def test_the_test_kit_is_a_plugin_of_the_wheel(distribution: Distribution) -> None:
    (plugin,) = (point for point in entry_points(group="pytest11") if point.name == "runfold")
    run(distribution.python, "-c", f"import {plugin.value}")
