"""A login that is refused under a running worker, for a while: an outage, and no run's fault."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from runfold import Context, Ledger, handler
from runfold.ledger import names
from tests.support.databases import PROJECT
from tests.support.proxy import proxied
from tests.support.runs import types
from tests.support.waiting import until
from tests.support.working import FAST, ended, working

REFUSALS = ("28000", "28P01", "42501", "53300", "57P03", "3D000")
"""NOLOGIN, a changed password, no CONNECT, no room, a server that starts, a renamed database."""


async def test_logins_that_are_refused_for_a_while_end_no_run_and_are_told_once(
    ledger: Ledger, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in FAST.items():
        monkeypatch.setenv(name, value)
    outage, over = asyncio.Event(), asyncio.Event()

    @handler("steps")
    async def steps(ctx: Context, until_the_end: str) -> str:
        await ctx.step("begin", lambda: None)
        await (over if until_the_end else outage).wait()
        return await ctx.step("pay", lambda: "paid")

    runs = [await ledger.submit("steps", "yes" * (number % 2)) for number in range(4)]
    async with proxied(database) as proxy, Ledger.open(proxy.url, PROJECT) as far:
        with capture_logs() as logs:
            async with working(far, steps, concurrency=6):
                for run in runs:
                    await until(partial(begun, ledger, run.run_id))
                before = len(logs)  # a busy machine may have been late for a beat
                proxy.refuse_logins(*REFUSALS)
                proxy.reset()
                outage.set()
                await until(
                    lambda: (
                        min(proxy.refused[code] for code in REFUSALS) > 2
                        and any(line["event"] == names.LEASE_IN_DOUBT for line in logs)
                    ),
                )
                during = logs[before:]
                proxy.refuse_logins()
                over.set()
                for run in [*runs, await ledger.submit("steps", "yes")]:
                    done = await ended(ledger, run)
                    assert (done.output, done.attempt_count) == ("paid", 1)
                await until(lambda: any(line["event"] == names.BEATS_AGAIN for line in logs))

    told = Counter(
        (line["event"], line.get("run_id"), line.get("reason"))
        for line in during
        if line["log_level"] != "info"
    )
    assert told.total() == len(told), told.most_common(3)


async def begun(ledger: Ledger, run_id: UUID) -> bool:
    """Whether a run has recorded its first step."""
    return "step.completed" in await types(ledger, run_id)
