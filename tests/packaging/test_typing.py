"""What a type checker says of a user's program that uses the installed wheel."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging.conftest import Distribution

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).with_name("typed_program.py")


def test_a_users_program_is_typed_strictly_against_the_wheel(
    distribution: Distribution, tmp_path: Path
) -> None:
    assert _checked(distribution, PROGRAM.read_text(), tmp_path) == []


def test_a_users_mistakes_are_reported_against_the_wheel(
    distribution: Distribution, tmp_path: Path
) -> None:
    wrong = PROGRAM.read_text().replace("priority=1", 'priority="high"')
    wrong = wrong.replace("run.state", "run.sttae").replace("ctx.step(", "ctx.stepp(")
    found = "\n".join(_checked(distribution, wrong, tmp_path))
    for mistake in ('"priority"', '"sttae"', '"stepp"'):
        assert mistake in found


def _checked(distribution: Distribution, program: str, folder: Path) -> list[str]:
    (folder / "app.py").write_text(program)
    words = [
        "--strict",
        "--no-error-summary",
        "--config-file=",
        "--cache-dir",
        str(folder / "cache"),
    ]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            *words,
            "--python-executable",
            distribution.python,
            "app.py",
        ],
        capture_output=True,
        text=True,
        cwd=folder,
        check=False,
    )
    assert done.returncode in {0, 1}, done.stderr
    return done.stdout.splitlines()
