"""`runfold demo`: the story on real files, from submission to verification."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

import structlog
from rich.console import Console

from runfold.console.cli.kit.output import talk
from runfold.console.demo.outcome import Outcome
from runfold.console.demo.report import Talk, print_outcome, talking
from runfold.console.demo.story import DemoFailed, play
from runfold.ledger.errors import LedgerError

FILES: Final = 400
GUARD_SECONDS: Final = 180.0
FAILED: Final = 1
INTERRUPTED: Final = 130


def run(*, json: bool = False, files: int = FILES, verbose: bool = False) -> int:
    """Run the demo on up to `files` files and print the outcome; return 0 only if all went well.

    Data goes to standard output, with `json` as one JSON object; talk goes to standard error.
    """
    if not verbose:
        silence_log()
    with talking() as progress:
        outcome = _played(files, progress)
    if isinstance(outcome, int):
        return outcome
    if json:
        Console().print_json(data=outcome.shown(), ensure_ascii=True)
    else:
        print_outcome(outcome, Console())
        talk(f"look around: runfold --project {outcome.project} runs")
    problems = outcome.problems()
    for problem in problems:
        _complain(problem)
    return FAILED if problems else 0


def _played(files: int, progress: Talk) -> Outcome | int:
    try:
        return asyncio.run(_guarded(files, progress))
    except (DemoFailed, LedgerError) as error:
        _complain(str(error))
        return FAILED
    except KeyboardInterrupt:
        _complain("interrupted; every worker is stopped")
        return INTERRUPTED


async def _guarded(files: int, progress: Talk) -> Outcome:
    try:
        async with asyncio.timeout(GUARD_SECONDS) as guard:
            return await play(files, progress.say, progress.show)
    except TimeoutError:
        if not guard.expired():
            raise
        raise DemoFailed(f"not done after {GUARD_SECONDS:.0f} s") from None


def _complain(line: str) -> None:
    talk(f"runfold demo: {line}")


def silence_log() -> None:
    """Leave out the log's warnings: the report tells of expired leases."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
