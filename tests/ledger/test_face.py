"""What a program imports: every name is there, and asking for one loads no more than it needs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import runfold
import runfold.errors
import runfold.events
import runfold.ledger
import runfold.workers

HEAVY = ("asyncpg", "sqlalchemy", "alembic", "structlog", "typer", "rich")


@pytest.mark.parametrize(
    "face", [runfold, runfold.errors, runfold.events, runfold.ledger, runfold.workers]
)
def test_every_name_that_a_face_lists_can_be_imported(face: object) -> None:
    names: list[str] = face.__all__  # type: ignore[attr-defined]

    assert names == sorted(names)
    assert [name for name in names if not hasattr(face, name)] == []


def test_a_name_that_a_face_does_not_have_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'runfold' has no attribute 'Leger'"):
        runfold.Leger  # type: ignore[attr-defined]  # noqa: B018


def test_every_error_of_the_ledger_is_in_the_face_of_errors() -> None:
    from runfold.ledger import errors

    own = {name for name, value in vars(errors).items() if _is_error_of(value, errors.__name__)}
    assert own <= set(runfold.errors.__all__)


def test_importing_the_vocabulary_loads_no_driver_and_no_command_line() -> None:
    program = "import sys, runfold.ledger.lifecycle, runfold.workers.errors; print(*sys.modules)"
    shown = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert [name for name in HEAVY if name in shown.stdout.split()] == []


def _is_error_of(value: object, module: str) -> bool:
    return isinstance(value, type) and issubclass(value, Exception) and value.__module__ == module
