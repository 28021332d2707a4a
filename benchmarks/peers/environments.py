"""Virtual environments: one for each system, from its own lock, so that none sees another's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
LOCKS: Final = Path(__file__).parent / "locks"
HOME: Final = ROOT / ".venv-peers"
INSTALL_SECONDS: Final = 600
_UV: Final = str(Path(sys.executable).with_name("uv"))


def python_of(name: str) -> Path:
    """Return the interpreter of a system's environment."""
    return HOME / name / "bin" / "python"


def install(name: str) -> str | None:
    """Make a system's environment as its lock has it; return why that failed, or None.

    PEERS_PY names the interpreter: Oban needs Python 3.12.
    """
    lock, python = LOCKS / f"{name}.txt", python_of(name)
    wanted = lock.read_text()
    mark = HOME / name / "installed"
    if mark.exists() and mark.read_text() == wanted:
        return None
    steps = [
        [os.environ.get("PEERS_PY", sys.executable), "-m", "venv", "--clear", str(HOME / name)],
        [_UV, "pip", "install", "-q", "-p", str(python), "--require-hashes", "-r", str(lock)],
    ]
    if name == "runfold":  # this checkout, with what it is locked to
        locked = [*steps[1][:-1], str(ROOT / "requirements.lock")]
        itself = ["--no-deps", "--no-build-isolation", "-e", str(ROOT)]
        steps += [locked, [*steps[1][:6], *itself]]
    for step in steps:
        try:
            done = subprocess.run(  # noqa: S603  commands of our own
                step, capture_output=True, text=True, check=False, timeout=INSTALL_SECONDS
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"cannot be installed: {error}"
        if done.returncode:
            return f"cannot be installed: {(done.stderr.strip().splitlines() or ['?'])[-1].strip()}"
    mark.write_text(wanted)
    return None


def versions(name: str) -> dict[str, str]:
    """Return the versions that the lock names, by package."""
    lines = (LOCKS / f"{name}.in").read_text().split()
    wanted = {line.split("[")[0].lower() for line in lines}
    pins = (line.split(" ")[0] for line in (LOCKS / f"{name}.txt").read_text().splitlines())
    pairs = (pin.split("==") for pin in pins if "==" in pin)
    return {pair[0]: pair[1] for pair in pairs if pair[0].lower() in wanted}
