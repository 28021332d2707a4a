"""A handler that lowers the limits of its process harms its neighbours for a moment only."""

from __future__ import annotations

import resource
import sys

import pytest

from runfold.ledger import Ledger, names
from runfold.workers import BlockingContext, Context, handler
from runfold.workers.shared_limits import SharedLimits
from tests.support.waiting import until
from tests.support.working import ended, working

BEFORE = sys.getrecursionlimit(), resource.getrlimit(resource.RLIMIT_NOFILE)


@handler("lowers")
async def lowers(ctx: Context) -> None:
    sys.setrecursionlimit(BEFORE[0] - 1)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, BEFORE[1][1]))


@handler("lowers and stays")
def lowers_and_stays(ctx: BlockingContext) -> None:
    sys.setrecursionlimit(BEFORE[0] - 1)
    ctx.sleep(60)


async def test_limits_that_a_handler_lowers_are_taken_back_when_it_ends(
    ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    async with working(ledger, lowers):
        assert (await ended(ledger, await ledger.submit("lowers"))).state == "completed"
        assert (sys.getrecursionlimit(), resource.getrlimit(resource.RLIMIT_NOFILE)) == BEFORE
    assert names.LIMITS_RESTORED in capsys.readouterr().err


async def test_limits_that_a_handler_lowers_are_taken_back_while_it_works(
    ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    async with working(ledger, lowers_and_stays, grace=0):
        await ledger.submit("lowers and stays")
        await until(lambda: names.LIMITS_RESTORED in capsys.readouterr().err)
        assert sys.getrecursionlimit() == BEFORE[0]


def test_limits_that_are_raised_stay() -> None:
    limits = SharedLimits()
    try:
        sys.setrecursionlimit(BEFORE[0] + 1)
        limits.restore()
        assert sys.getrecursionlimit() == BEFORE[0] + 1
    finally:
        sys.setrecursionlimit(BEFORE[0])
