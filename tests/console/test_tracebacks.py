"""Tracebacks of handlers, as `runfold show` prints them."""

from __future__ import annotations

from runfold import Context, handler
from tests.support.console import Cli, cli
from tests.support.working import done

__all__ = ["cli"]


@handler("deep")
async def deep(_: Context) -> None:
    """Fail with a traceback that is longer than what is kept."""
    try:
        getattr(None, "the beginning" + 9_000 * "x")
    except AttributeError as error:
        raise KeyError("the end") from error


def test_the_end_of_an_oversized_traceback_is_shown(cli: Cli) -> None:
    run = cli.given(lambda ledger: done(ledger, deep, max_attempts=1))

    lines = cli.ok("show", str(run.run_id)).out.splitlines()

    trace = lines[lines.index("traceback") + 1 :]
    assert trace[-1].strip() == "KeyError: 'the end'"
    assert 'raise KeyError("the end") from error' in trace[-2]
    assert not any("the beginning" in line for line in trace)
