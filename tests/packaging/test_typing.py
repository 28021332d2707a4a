"""What a type checker says of a user's program that uses the installed wheel."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging.conftest import Distribution

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).with_name("typed_program.py").read_text()
MISTAKEN = (
    PROGRAM.replace("priority=1", 'priority="high"')
    .replace("run.state", "run.sttae")
    .replace("ctx.step(", "ctx.stepp(")
)
FACES = ["runfold", "runfold.events", "runfold.errors", "runfold.projections"]


@pytest.fixture(scope="module")
def reported(
    distribution: Distribution, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[str]]:
    """What mypy reports of each program; all are checked in one run, which takes seconds."""
    folder = tmp_path_factory.mktemp("programs")
    programs = {"right.py": PROGRAM, "mistaken.py": MISTAKEN}
    programs |= {names_in(face): f"from {face} import Nonsense\n" for face in FACES}
    for name, program in programs.items():
        (folder / name).write_text(program)
    words = ["--strict", "--no-error-summary", "--config-file=", f"--cache-dir={folder / 'cache'}"]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", *words),
            f"--python-executable={distribution.python}",
            *programs,
        ],
        capture_output=True,
        text=True,
        cwd=folder,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    return {name: [line for line in lines if line.startswith(f"{name}:")] for name in programs}


def test_a_users_program_is_typed_strictly_against_the_wheel(
    reported: dict[str, list[str]],
) -> None:
    assert reported["right.py"] == []


def test_a_users_mistakes_are_reported_against_the_wheel(reported: dict[str, list[str]]) -> None:
    for mistake in ('"priority"', '"sttae"', '"stepp"'):
        assert mistake in "\n".join(reported["mistaken.py"])


@pytest.mark.parametrize("face", FACES)
def test_a_name_that_a_face_does_not_have_is_reported_against_the_wheel(
    reported: dict[str, list[str]], face: str
) -> None:
    lines = reported[names_in(face)]

    assert len(lines) == 1
    assert f'Module "{face}" has no attribute "Nonsense"' in lines[0]


def names_in(face: str) -> str:
    """The file that takes a name from a face; its own name must not hide the package."""
    return f"names_in_{face.replace('.', '_')}.py"
