"""The processes of one system: one that answers and ends, or workers that are stopped."""

from __future__ import annotations

import asyncio
import json
from asyncio.subprocess import PIPE, Process
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from benchmarks.peers.environments import python_of

CHILD: Final = Path(__file__).with_name("child.py")
READY_SECONDS: Final = 60
STOP_SECONDS: Final = 6
Figures = dict[str, Any]


class ChildError(Exception):
    """A process of a system failed or took too long; the text is its last line."""


async def answer(name: str, url: str, role: str, *, limit: float, **given: Any) -> Figures:
    """Run a process to its end and return its answer. Raises ChildError or TimeoutError."""
    child = await _spawned(name, url, role, given)
    try:
        out, err = await asyncio.wait_for(child.communicate(), limit)
    except BaseException:
        with suppress(ProcessLookupError):
            child.kill()
        raise
    if child.returncode:
        raise ChildError(_last_line(err))
    figures: Figures = json.loads(out.splitlines()[-1])
    return figures


async def worker(name: str, url: str, slots: int, first: Path) -> Process:
    """Start a worker and return it when it is ready for `go`; its first job is noted in `first`."""
    child = await _spawned(name, url, "work", {"slots": slots, "first": str(first)})
    assert child.stdout is not None
    assert child.stderr is not None
    is_ready = False
    try:
        is_ready = await asyncio.wait_for(child.stdout.readline(), READY_SECONDS) == b"ready\n"
    finally:
        if not is_ready:
            with suppress(ProcessLookupError):
                child.kill()
    if not is_ready:
        raise ChildError(_last_line(await asyncio.wait_for(child.stderr.read(), STOP_SECONDS)))
    return child


def go(child: Process) -> None:
    """Let a worker work."""
    assert child.stdin is not None
    child.stdin.write(b"go\n")


async def ended(child: Process) -> Figures:
    """Let a worker stop and return its answer."""
    assert child.stdout is not None
    child.terminate()
    figures: Figures = json.loads(await asyncio.wait_for(child.stdout.readline(), READY_SECONDS))
    return figures


async def stopped(child: Process) -> None:
    """Stop a worker its own way, or else kill it."""
    with suppress(ProcessLookupError):
        child.terminate()
    try:
        await asyncio.wait_for(child.communicate(), STOP_SECONDS)
    except (TimeoutError, ValueError):
        with suppress(ProcessLookupError):
            child.kill()
        await child.wait()


async def _spawned(name: str, url: str, role: str, given: Figures) -> Process:
    words = [str(python_of(name)), str(CHILD), name, role, url, json.dumps(given)]
    return await asyncio.create_subprocess_exec(
        *words, stdin=PIPE, stdout=PIPE, stderr=PIPE, limit=2**27
    )


def _last_line(text: bytes) -> str:
    return (text.decode(errors="replace").strip().splitlines() or ["it ended"])[-1]
