"""Reads of a login without the right: they say so, where they would find nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import asyncpg
import pytest

from runfold.ledger import Ledger, api_tokens, payload_reads, sessions, users, views
from runfold.ledger.access import EVERYWHERE, RIGHTS
from runfold.ledger.errors import AccessDenied, RunNotFound
from runfold.ledger.reading import subscription
from runfold.projections import whatif
from tests.support.databases import PROJECT
from tests.support.logins import grant, login_of, with_login
from tests.support.waiting import BOUND

UNKNOWN: Final = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
DELIVERY: Final = f"wh_{'0' * 12}_{UNKNOWN}_1_00000000"
RUNS: Final = {"read", "work", "audit"}
Read = Callable[[Ledger], Awaitable[Any]]
READS: Final[dict[str, tuple[Read, set[str]]]] = {
    "get": (lambda ledger: ledger.get(UNKNOWN), RUNS),
    "wait": (lambda ledger: ledger.wait(UNKNOWN), RUNS),
    "runs": (lambda ledger: ledger.runs(), RUNS),
    "runs of a kind": (lambda ledger: ledger.runs(kind="parse"), RUNS),
    "runs at": (lambda ledger: ledger.runs(at=datetime.now(UTC)), RUNS),
    "runs of a kind at": (lambda ledger: ledger.runs(kind="parse", at=datetime.now(UTC)), RUNS),
    "search": (lambda ledger: ledger.search("state:failed"), RUNS),
    "history": (lambda ledger: ledger.history(UNKNOWN), {"read"}),
    "state_at": (lambda ledger: ledger.state_at(UNKNOWN, 1), RUNS),
    "diff": (lambda ledger: ledger.diff(UNKNOWN, 1), RUNS),
    "subscribe": (lambda ledger: _first(ledger.subscribe(live=False)), {"read", "audit"}),
    "verify": (lambda ledger: ledger.verify(), {"read", "audit"}),
    "kinds": (lambda ledger: ledger.kinds(), {"read", "work", "submit", "audit"}),
    "kind_history": (lambda ledger: ledger.kind_history("parse"), {"read", "audit"}),
    "schedules": (lambda ledger: ledger.schedules(), {"read", "schedule", "audit"}),
    "role_members": (
        lambda ledger: ledger.role_members(),
        {"read", "work", "decide", "audit", "admin"},
    ),
    "role_history": (
        lambda ledger: ledger.role_history(),
        {"read", "work", "decide", "audit", "admin"},
    ),
    "control_history": (lambda ledger: ledger.control_history(), {"audit"}),
    "webhooks": (lambda ledger: ledger.webhooks.every(), {"audit", "admin"}),
    "deliveries": (lambda ledger: ledger.webhooks.deliveries("wh_1"), {"audit", "admin"}),
    "attempts": (lambda ledger: ledger.webhooks.attempts(DELIVERY), {"audit", "admin"}),
    "grants": (lambda ledger: ledger.access_grants("nobody"), {"audit", "admin"}),
    "views": (lambda ledger: views.views(ledger.project), {"read", "audit"}),
    "what if": (lambda ledger: _first(_judged(ledger)), RUNS),
    "reads": (lambda ledger: payload_reads.reads(ledger.project), {"audit"}),
}
EVERYWHERE_READS: Final[dict[str, tuple[Read, set[str]]]] = {
    "control_history": (lambda ledger: ledger.control_history(everywhere=True), {"audit"}),
    "tokens": (lambda ledger: api_tokens.tokens(ledger.project), {"audit", "admin"}),
    "users": (lambda ledger: users.users(ledger.project), {"audit", "admin"}),
    "sessions": (lambda ledger: sessions.sessions(ledger.project), {"audit", "admin"}),
}


def _judged(ledger: Ledger) -> Any:
    return whatif.judge(ledger, whatif.WhatIf(whatif.Policy(), datetime.now(UTC)))


async def _first(events: Any) -> None:
    async for _ in events:
        return


@pytest.mark.slow
@pytest.mark.parametrize("place", [PROJECT, EVERYWHERE])
async def test_a_read_without_the_right_is_refused_and_with_it_finds_nothing(
    database: str,
    ledger: Ledger,
    connection: asyncpg.Connection[Any],
    subtests: pytest.Subtests,
    place: str,
) -> None:
    """Nothing would look like an answer: no runs, no such run, no changes on record."""
    run = await ledger.submit("parse")
    await ledger.cancel(run.run_id)
    where = f"project {PROJECT}" if place == PROJECT else "all projects"
    async with (
        with_login(database, "runfold_worker", "runfold_auditor", rights=["submit"]) as url,
        Ledger.open(url, PROJECT) as own,
    ):
        for name, (read, rights) in (READS if place == PROJECT else EVERYWHERE_READS).items():
            with subtests.test(name):
                await grant(connection, login_of(url), sorted(set(RIGHTS) - rights), project=place)
                with pytest.raises(AccessDenied, match=f"lacks the right .* in {where}"):
                    await read(own)
                for right in sorted(rights):
                    await grant(connection, login_of(url), [right], project=place)
                    try:
                        await read(own)
                    except RunNotFound:
                        assert name in {"get", "wait", "history", "state_at", "diff"}


async def test_a_subscription_ends_when_its_right_is_taken_away(
    database: str,
    ledger: Ledger,
    connection: asyncpg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(subscription, "CHECK_SECONDS", 0)
    run = await ledger.submit("parse")
    async with (
        with_login(database, "runfold_worker", rights=["read"]) as url,
        Ledger.open(url, PROJECT) as own,
    ):
        events = aiter(own.subscribe())
        assert (await anext(events)).run_id == run.run_id

        await grant(connection, login_of(url), ["submit"])

        with pytest.raises(AccessDenied, match="lacks the right read or audit"):
            await asyncio.wait_for(anext(events), BOUND)


@pytest.mark.parametrize("right", ["read", "audit"])
async def test_a_subscription_passes_no_event_that_was_hidden_from_it(
    database: str, ledger: Ledger, connection: asyncpg.Connection[Any], right: str
) -> None:
    """Between two checks: what it must not see comes after the right was given back."""
    first = await ledger.submit("parse")
    async with (
        with_login(database, "runfold_worker", rights=[right]) as url,
        Ledger.open(url, PROJECT) as own,
    ):
        subscription = own.subscribe()
        events = aiter(subscription)
        assert (await anext(events)).run_id == first.run_id
        await grant(connection, login_of(url), sorted(set(RIGHTS) - {"read", "audit"}))
        second = await ledger.submit("parse")

        with pytest.raises(AccessDenied, match="lacks the right read or audit"):
            await asyncio.wait_for(anext(events), BOUND)
        await grant(connection, login_of(url), [right])

        assert (await anext(aiter(subscription))).run_id == second.run_id


async def test_a_credential_without_grants_may_ask_for_its_own(database: str) -> None:
    async with (
        with_login(database, "runfold_worker", rights=["read"], project="*") as url,
        Ledger.open(url, PROJECT) as own,
    ):
        [grant_of_all] = await own.access_grants(login_of(url))
        assert grant_of_all.project_id == EVERYWHERE
        assert await own.access_grants() == [grant_of_all]
