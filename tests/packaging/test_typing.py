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
    reported = "\n".join(_checked(distribution, wrong, tmp_path))
    for mistake in ('"priority"', '"sttae"', '"stepp"'):
        assert mistake in reported


@pytest.mark.parametrize(
    "face", ["runfold", "runfold.events", "runfold.errors", "runfold.projections"]
)
def test_a_name_that_a_face_does_not_have_is_reported_against_the_wheel(
    distribution: Distribution, tmp_path: Path, face: str
) -> None:
    reported = _checked(distribution, f"from {face} import Nonsense\n", tmp_path)

    assert len(reported) == 1
    assert f'Module "{face}" has no attribute "Nonsense"' in reported[0]


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
