"""Events of a type that a newer release writes beside this one: shown as they are, and passed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from mcp import Client

from runfold.console.agents.asking import Asking
from runfold.console.agents.server import server
from runfold.console.web import app
from runfold.console.web.options import Options
from runfold.ledger import Ledger
from runfold.ledger.events import Event, OpaqueEvent
from runfold.ledger.lifecycle import MOVES
from runfold.projections import CatchUp, Projection, count, install, of_run, refold, replay
from runfold.projections.declared.status import statuses
from runfold.projections.models.activity import WORKER_ACTIVITY
from runfold.projections.state.drift import check, sample
from runfold.projections.state.legal import is_type_sql, legal_sql
from runfold.projections.whatif import Policy, WhatIf, judge
from runfold.workers.duties.webhooks.deliverer import Terms
from runfold.workers.duties.webhooks.posting import Poster
from runfold.workers.duties.webhooks.sender import WebhookSender
from tests.support.databases import PROJECT
from tests.support.receiver import receiving
from tests.support.web import calling

PINNED = "note.pinned"
CONTENT = {"text": "for the desk", "shelf": {"number": 7}}
TYPES = ["run.submitted", PINNED, "lease.acquired", PINNED, "run.failed"]
_PIN = """
SELECT version FROM ledger.append($1, 'ann', ARRAY[$2::uuid], ARRAY[NULL::int],
  ARRAY['note.pinned'], ARRAY[1], ARRAY[NULL], ARRAY[NULL], ARRAY[$3],
  ARRAY[NULL::numeric], ARRAY[NULL::int], ARRAY[NULL::int], ARRAY[NULL])
"""
SEEN: list[str] = []


async def _seen(connection: Any, events: Sequence[Event]) -> None:
    SEEN.extend(event.type for event in events)


PROJECTIONS = (
    Projection("counted", key={"kind": of_run("kind")}, columns={"events": count()}),
    Projection("seen", apply=_seen),
    WORKER_ACTIVITY,
)


@pytest.mark.slow
async def test_whatever_reads_events_goes_on_past_those_of_a_newer_release(
    unverified_database: str, subtests: pytest.Subtests
) -> None:
    async with Ledger.open(unverified_database, PROJECT) as ledger, receiving() as receiver:
        await ledger.webhooks.add(receiver.url)
        run_id = await _beside_a_newer_release(ledger)
        for look in (_pages, _subscription, _agent, _checks, _projections):
            with subtests.test(look.__name__):
                await look(ledger, run_id)
        with subtests.test("webhook"):
            await WebhookSender(ledger, Terms(Poster(loopback=True))).once()
            told = [json.loads(body)["type"] for _, body in receiver.requests]
            assert sorted(told) == sorted([*TYPES, "run.submitted"])


async def _beside_a_newer_release(ledger: Ledger) -> UUID:
    """Fail a run in whose history such events are, and submit another."""
    with pytest.MonkeyPatch.context() as newer:
        newer.setitem(MOVES, PINNED, MOVES["note.added"])
        await ledger.pool.execute(legal_sql())
        await ledger.pool.execute(is_type_sql())
    run = await ledger.submit("parse", {"path": "a.py"})
    await ledger.pool.fetchval(_PIN, PROJECT, run.run_id, json.dumps(CONTENT))
    [lease] = await ledger.claim("w:1", kinds=["parse"])
    await ledger.pool.fetchval(_PIN, PROJECT, run.run_id, json.dumps(CONTENT))
    await ledger.fail(lease, error_code="E-TEST")
    await ledger.submit("other")
    return run.run_id


async def _pages(ledger: Ledger, run_id: UUID) -> None:
    async with calling(app(ledger, Options(open=True))) as web:
        for path, said in (
            ("", PINNED), ("/raw", CONTENT["text"]), ("/events/2", CONTENT["text"]),
            ("/chain.json", PINNED), ("/state?at=2", "pending"), ("/state?at=4&vs=1", "running"),
        ):  # fmt: skip
            page = await web.get(f"/p/{PROJECT}/runs/{run_id}{path}")
            assert page.status_code == 200
            assert str(said) in page.text
        [_, pinned, *_] = (await web.get(f"/v1/runs/{run_id}/history")).json()["events"]
        assert (pinned["type"], pinned["raw"]) == (PINNED, CONTENT)


async def _subscription(ledger: Ledger, run_id: UUID) -> None:
    events = [event async for event in ledger.subscribe(live=False, kinds=["parse"])]
    assert [event.type for event in events] == TYPES
    assert isinstance(events[1], OpaqueEvent)
    assert events[1].raw == CONTENT


async def _agent(ledger: Ledger, run_id: UUID) -> None:
    async with Client(server(await Asking.begin(ledger, None))) as agent:
        for tool, asked in (
            ("run_history", {}),
            ("why_did_it_fail", {}),
            ("diff_run", {"start": 1}),
        ):
            answer = await agent.call_tool(tool, {"run_id": str(run_id), **asked})
            assert not answer.is_error, answer
            assert tool != "run_history" or PINNED in str(answer)


async def _checks(ledger: Ledger, run_id: UUID) -> None:
    assert [drifted async for drifted in check(ledger)] == []
    assert await sample(ledger, 10) == (2, [])
    assert (await replay(ledger, actor="ann", reason="a check")).wrong == 0
    what_if = WhatIf(Policy(max_attempts=1), datetime.now(UTC))
    assert [verdict async for verdict in judge(ledger, what_if)] == []
    assert (what_if.runs, what_if.leases) == (2, 1)
    assert {found.problem for found in (await ledger.verify()).findings} == {"unknown"}


async def _projections(ledger: Ledger, run_id: UUID) -> None:
    for projection in PROJECTIONS:
        await install(ledger.pool, projection)
        await CatchUp(ledger.pool, projection).to_the_end()
    assert [type_ for type_ in SEEN if type_ in TYPES][: len(TYPES)] == TYPES
    assert {status.error for status in await statuses(ledger.pool, {})} == {None}
    counted = "SELECT kind, events FROM projection.counted ORDER BY kind"
    rows = [tuple(row) for row in await ledger.pool.fetch(counted)]
    assert rows == [("other", 1), ("parse", len(TYPES))]
    assert (await refold(ledger.pool, PROJECTIONS[0])).wrong == 0
