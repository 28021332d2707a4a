"""How the tests are collected and reported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging.conftest import ROOT

pytestmark = pytest.mark.slow

FAILING = """
import ast

import pytest

def test_deep(monkeypatch):
    def parse(*_, **__):
        raise SystemError("AST constructor recursion depth mismatch")
    monkeypatch.setattr(ast, "parse", parse)
    assert [] == 1

def test_next():
    pass
"""
MARKED = """
import pytest

@pytest.fixture
def server(): ...

def test_pure(): ...
def test_first(server): ...
def test_second(server): ...
@pytest.mark.slow
def test_slow(): ...
"""


def test_a_failure_whose_source_cannot_be_parsed_is_reported_and_the_session_goes_on(
    tmp_path: Path,
) -> None:
    done = _pytest(tmp_path, FAILING)
    assert "1 failed, 1 passed" in done
    assert "INTERNALERROR" not in done


def test_quick_tests_are_those_without_a_server_and_one_with_it_a_file(tmp_path: Path) -> None:
    done = _pytest(tmp_path, MARKED, "-m", "quick", "--collect-only")
    assert [line.rpartition("::")[2] for line in done.splitlines() if "::" in line] == [
        "test_pure",
        "test_first",
    ]


def test_a_journey_that_is_named_is_the_quick_one(tmp_path: Path) -> None:
    marked = MARKED.replace("def test_second", "@pytest.mark.journey\ndef test_second")
    done = _pytest(tmp_path, marked, "-m", "quick", "--collect-only")
    assert [line.rpartition("::")[2] for line in done.splitlines() if "::" in line] == [
        "test_pure",
        "test_second",
    ]


def _pytest(folder: Path, program: str, *words: str) -> str:
    (folder / "test_it.py").write_text(program)
    (folder / "pytest.ini").write_text("[pytest]\n")
    options = ["-q", "-p", "xdist.plugin", "-p", "tests.support.collection", "-pno:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "--rootdir", str(folder), *words, str(folder)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        check=False,
    )
    return done.stdout + done.stderr
