"""The face of the projections: one import for one declaration, and none before its use."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from runfold import projections


def test_everything_that_a_declaration_needs_comes_from_one_module() -> None:
    for name in projections.__all__:
        assert getattr(projections, name) is not None
    assert set(dir(projections)) == set(projections.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        projections.nothing  # type: ignore[attr-defined]  # noqa: B018  the lookup is tested


def test_the_types_know_the_same_names_as_the_program() -> None:
    tree = ast.parse(Path(str(projections.__file__)).read_text())
    homes = projections._HOMES  # noqa: SLF001  the list under test
    imported = {
        (str(node.module), alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("runfold.projections")
        for alias in node.names
    }
    assert imported == {(home, name) for home, names in homes.items() for name in names}
    assert {name for _, name in imported} == set(projections.__all__)


def test_the_import_of_the_package_imports_no_driver() -> None:
    program = (
        "import sys, runfold.projections; "
        "print(sorted({'asyncpg', 'sqlalchemy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
