"""The distribution as a user gets it: a wheel, built from the sdist, in a clean environment."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Distribution:
    """The built files, and an environment in which the wheel is installed."""

    sdist: Path
    wheel: Path
    python: Path
    site: Path

    @property
    def command(self) -> Path:
        """The installed `runfold` command."""
        return self.python.with_name("runfold")


@pytest.fixture(scope="session")
def distribution(tmp_path_factory: pytest.TempPathFactory) -> Distribution:
    """Build the sdist, the wheel from it, and install the wheel without touching the network."""
    folder = tmp_path_factory.mktemp("distribution")
    built = folder / "dist"
    uv = Path(sys.executable).with_name("uv")
    run(uv, "build", "--offline", "--no-build-isolation", "-p", sys.executable, "-o", built, ROOT)
    (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
    run(sys.executable, "-m", "venv", "--without-pip", folder / "venv")
    python = folder / "venv" / "bin" / "python"
    run(uv, "pip", "install", "--offline", "--no-deps", "-p", python, wheel)
    (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
    # The locked dependencies, from the environment that runs the tests. A path that a .pth file
    # names is not searched for further .pth files, so the editable install stays out.
    dependencies = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site / "dependencies.pth").write_text("\n".join(sorted(dependencies)) + "\n")
    return Distribution(sdist, wheel, python, site)


def run(*words: str | Path, cwd: Path | None = None) -> str:
    """Run a program; return its output, or fail with what it printed."""
    done = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, cwd=cwd, check=False
    )
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout
