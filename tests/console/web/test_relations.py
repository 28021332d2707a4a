"""The run page's relatives, attempts and raw form."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import httpx

from runfold.console.shared.rerun import rerun
from runfold.console.web.pages.attempts import attempts
from runfold.console.web.pages.timeline import Fact
from runfold.ledger import Ledger
from runfold.ledger.events import StepCompleted
from tests.support.runs import claimed, superseded
from tests.support.web import words_of

START = datetime(2026, 1, 31, 12, tzinfo=UTC)


async def with_children(ledger: Ledger, number: int) -> tuple[UUID, list[UUID]]:
    """Return a run whose handler asked for children, and these."""
    await ledger.submit("book")
    [lease] = await ledger.claim("w", limit=1)
    children = [(await ledger.submit("page", n, parent=lease.run_id)).run_id for n in range(number)]
    asked = StepCompleted(name="children:page#1", output=[str(child) for child in children])
    await ledger.append(lease, asked, key=f"{lease.run_id}:1:{lease.token}")
    return lease.run_id, children


async def test_a_run_names_its_parent_its_children_and_its_reruns(
    web: httpx.AsyncClient, ledger: Ledger
) -> None:
    parent, [child, other] = await with_children(ledger, 2)
    await ledger.cancel(other)
    [again] = await rerun(ledger, [await ledger.get(other)], actor="ann", reason=None)

    relations = (await web.get(f"/p/test/runs/{parent}.json")).json()["relations"]
    assert [(each["run_id"], each["state"]) for each in relations["children"]] == [
        (str(child), "pending"), (str(other), "cancelled"),
    ]  # fmt: skip
    below = (await web.get(f"/p/test/runs/{other}.json")).json()["relations"]
    assert below["parent"]["run_id"] == str(parent)
    assert [each["run_id"] for each in below["later"]] == [str(again.run_id)]
    repeated = (await web.get(f"/p/test/runs/{again.run_id}.json")).json()["relations"]
    assert [each["run_id"] for each in repeated["earlier"]] == [str(other)]
    page = (await web.get(f"/p/test/runs/{other}")).text
    assert "Child of" in page
    assert "Rerun as" in page


async def test_a_tree_is_bounded_in_depth(web: httpx.AsyncClient, ledger: Ledger) -> None:
    root, children = await with_children(ledger, 1)
    for _ in range(5):
        [lease] = await ledger.claim("w", limit=1)
        children = [(await ledger.submit("page", parent=lease.run_id)).run_id]
        asked = StepCompleted(name="children:page#1", output=[str(children[0])])
        await ledger.append(lease, asked)
    branch, depth = (await web.get(f"/p/test/runs/{root}/tree.json")).json()["tree"], 0
    while branch["children"]:
        [branch], depth = branch["children"], depth + 1
    assert depth == 4
    assert "its own tree" in words_of(await web.get(f"/p/test/runs/{root}/tree"))


async def test_children_whose_ids_do_not_fit_are_found_by_their_keys(
    web: httpx.AsyncClient, ledger: Ledger
) -> None:
    lease = await claimed(ledger)
    called = f"{lease.run_id}/children:page#1"
    keys = [f"{called}/{n}" for n in (1, 2, 3)]
    children = [str((await ledger.submit("page", key=key)).run_id) for key in keys]
    asked = StepCompleted(name="children:page#1", output={"count": 3})
    await ledger.append(lease, asked, key=f"{called}:{lease.token}")
    relations = (await web.get(f"/p/test/runs/{lease.run_id}.json")).json()["relations"]
    assert [each["run_id"] for each in relations["children"]] == children


async def test_what_is_no_id_leads_nowhere(web: httpx.AsyncClient, ledger: Ledger) -> None:
    lease = await claimed(ledger, key="rerun:<b>nothing")
    for output in (["x"], {"count": "many"}, {}, 7, [None], [[1]]):
        await ledger.append(lease, StepCompleted(name="children:x", output=output))
    page = await web.get(f"/p/test/runs/{lease.run_id}")
    assert page.status_code == 200
    assert "Relatives" not in page.text


async def test_the_raw_page_has_every_fact_of_the_events(
    web: httpx.AsyncClient, ledger: Ledger
) -> None:
    old, _ = await superseded(ledger)
    path = f"/p/test/runs/{old.run_id}/raw"
    raw = (await web.get(f"{path}.json?from=1")).json()
    history = await ledger.history(old.run_id)
    assert [each["hash"] for each in raw["events"]] == [each.hash.hex() for each in history[1:]]
    assert history[2].hash.hex() in (await web.get(path)).text


def test_costs_belong_to_the_attempt_in_which_they_arose() -> None:
    def at(seconds: int) -> datetime:
        return START + timedelta(seconds=seconds)

    facts = [
        Fact(1, "run.submitted", at(0), "pending"),
        Fact(2, "lease.acquired", at(1), "running", attempt=1, worker_id="a", token=2),
        Fact(3, "step.completed", at(3), token=2, cost_usd=Decimal(2), step_count=1),
        Fact(4, "lease.expired", at(11), "pending", error_code="E-RUN-001"),
        Fact(5, "write.refused", at(12), token=2, cost_usd=Decimal(9)),
        Fact(6, "lease.acquired", at(20), "running", attempt=2, worker_id="b", token=6),
        Fact(7, "lease.heartbeat", at(21), token=6),
        Fact(8, "approval.requested", at(22), "waiting_approval", cost_usd=Decimal(1)),
        Fact(9, "approval.granted", at(90)),
        Fact(10, "lease.acquired", at(91), "running", attempt=2, worker_id="c", token=10),
        Fact(11, "run.completed", at(92), "completed", cost_usd=Decimal(3)),
    ]
    first, second = attempts(facts, at(99))
    assert (first.cost_usd, first.held, first.ended_by) == (
        2,
        timedelta(seconds=10),
        "lease.expired",
    )
    assert (second.cost_usd, second.held, second.leases) == (4, timedelta(seconds=3), 2)
    assert (second.worker_id, second.beats, second.ended_by) == ("c", 1, "run.completed")
    [open_] = attempts(facts[:3], at(5))
    assert (open_.held, open_.ended_by) == (timedelta(seconds=4), None)
