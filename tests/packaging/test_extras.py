"""What an installation without an extra says when the extra is needed."""

from __future__ import annotations

import sys
import tomllib

import pytest

from runfold.console.cli.kit import exits
from runfold.console.cli.main import main
from tests.packaging.conftest import ROOT

NEEDED = {
    "archive": ("pyarrow", ["archive", "check", str(ROOT / "README.md")]),
    "mcp": ("mcp", ["mcp"]),
    "metrics": ("prometheus_client", ["metrics", "--once"]),
    "traces": ("opentelemetry", ["trace", "0" * 32, "--otlp", "http://127.0.0.1:1"]),
    "webhooks": ("httpcore", ["webhooks", "run", "--once"]),
    "web": ("fastapi", ["serve", "--port", "0"]),
}


def test_every_extra_is_held_to_its_error() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert set(project["optional-dependencies"]) == set(NEEDED)


@pytest.mark.parametrize("extra", sorted(NEEDED))
def test_a_missing_extra_is_named_by_the_error(
    extra: str, database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    package, words = NEEDED[extra]
    for module in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)  # an import of it fails, as if not installed

    code = main(["--url", database, "--project", "test", *words])

    assert code == exits.ERROR
    assert f"install runfold[{extra}]" in capsys.readouterr().err
