"""Bulk actions: what is counted is what is done, once, on record, and by whom it may be done."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from runfold.console.shared import bulk
from runfold.console.web import app, running_bulks
from runfold.console.web.rates import TooManyRequests
from runfold.ledger import Ledger, State
from runfold.ledger.errors import InvalidValue
from tests.support.runs import claimed, types
from tests.support.waiting import BOUND, until
from tests.support.web import calling, sign_in, token, words_of

FORM = re.compile(r'<input type="hidden" name="(\w+)" value="([^"]*)">')


async def confirmed_form(web: httpx.AsyncClient, action: str, query: str) -> dict[str, str]:
    """Return what the page's form would send."""
    page = await web.get("/p/test/bulk", params={"action": action, "q": query})
    assert page.status_code == 200, page.text
    return dict(FORM.findall(page.text))


async def result(web: httpx.AsyncClient, sent: httpx.Response) -> dict[str, Any]:
    """Return a bulk's result when it has ended."""
    assert sent.status_code == 303, sent.text
    path = sent.headers["location"] + ".json"

    async def ended() -> Any:
        return (await web.get(path)).json()["ended_at"]

    await until(ended)
    return dict((await web.get(path)).json())


async def test_what_fits_is_cancelled_once_and_what_came_later_is_not(
    web: httpx.AsyncClient, ledger: Ledger
) -> None:
    held = await claimed(ledger, "w:1")
    runs = [await ledger.submit("page") for _ in range(3)]
    other = await ledger.submit("other")
    form = await confirmed_form(web, "cancel", "kind:page,parse")
    later = await ledger.submit("page")
    form |= {"reason": "wrong input"}

    done = await result(web, await web.post("/p/test/bulk", data=form))
    again = await result(web, await web.post("/p/test/bulk", data=form))

    assert (done["done"], done["refused"]) == (4, 0)
    assert again == done
    for run in runs:
        event = (await ledger.history(run.run_id))[-1]
        assert (event.type, event.actor) == ("run.cancelled", ledger.actor)
        assert event.content()["reason"] == "wrong input"
    assert await types(ledger, held.run_id) == [
        "run.submitted",
        "lease.acquired",
        "cancel.requested",
    ]
    for untouched in (other, later):
        assert (await ledger.get(untouched.run_id)).state == State.PENDING
    form["key"] = "another-key-of-the-form"
    assert (await result(web, await web.post("/p/test/bulk", data=form)))["done"] == 1  # the held
    assert len(await types(ledger, held.run_id)) == 3


async def test_a_bulk_has_an_action_and_a_reason_and_waits_for_its_turn(
    web: httpx.AsyncClient, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ledger.submit("page")
    form = await confirmed_form(web, "cancel", "kind:page")
    odd = await web.get("/p/test/bulk", params={"action": "erase", "q": "kind:page"})
    unexplained = await web.post("/p/test/bulk", data=form | {"reason": " "})
    monkeypatch.setattr(running_bulks, "RUNNING", 0)
    busy = await web.post("/p/test/bulk", data=form | {"reason": "why"})

    assert (odd.status_code, "action: Input should be" in odd.text) == (422, True)
    assert (unexplained.status_code, "it is recorded" in unexplained.text) == (422, True)
    assert (busy.status_code, "try again in 5 s" in busy.text) == (429, True)
    assert busy.headers["retry-after"] == "5"
    assert (await ledger.runs())[0].state == State.PENDING


async def test_the_bulks_of_one_project_hold_up_none_of_another_and_take_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batches, hurdle = Counter[str](), asyncio.Event()

    async def batch(ledger: Any, chosen: Any, **_: Any) -> Any:
        batches[ledger.project_id] += 1
        if ledger.project_id == "slow":
            await hurdle.wait()
        return SimpleNamespace(outcomes=[], older=None)

    monkeypatch.setattr(running_bulks, "batch", batch)
    bulks = running_bulks.RunningBulks()
    chosen: Any = None
    slow: Any = SimpleNamespace(project_id="slow", actor="ann")
    other: Any = SimpleNamespace(project_id="other", actor="ann")
    begun = [bulks.begin(f"k{n}", slow, chosen, "why") for n in range(running_bulks.RUNNING)]
    with pytest.raises(TooManyRequests):
        bulks.begin("one more", slow, chosen, "why")
    quick = [bulks.begin(f"k{n}", other, chosen, "why") for n in range(running_bulks.RUNNING)]
    await asyncio.wait_for(asyncio.gather(*(each.task for each in quick if each.task)), BOUND)

    assert batches == {"slow": 1, "other": running_bulks.RUNNING}
    hurdle.set()
    await asyncio.wait_for(asyncio.gather(*(each.task for each in begun if each.task)), BOUND)
    assert batches["slow"] == running_bulks.RUNNING
    bulks.begin("one more", slow, chosen, "why")
    await bulks.end()


async def test_no_more_bulks_of_all_projects_are_remembered_than_a_server_has_room_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def batch(*_: Any, **__: Any) -> Any:
        return SimpleNamespace(outcomes=[], older=None)

    monkeypatch.setattr(running_bulks, "batch", batch)
    monkeypatch.setattr(running_bulks, "REMEMBERED", 2)
    monkeypatch.setattr(running_bulks, "REMEMBERED_OF_ALL", 5)
    bulks = running_bulks.RunningBulks()
    chosen: Any = None
    begun: list[tuple[str, str]] = []
    for number in range(12):
        ledger: Any = SimpleNamespace(project_id=f"p{number // 3}", actor="ann")
        task = bulks.begin(f"k{number}", ledger, chosen, "why").task
        assert task is not None
        await asyncio.wait_for(task, BOUND)
        begun.append((ledger.project_id, f"k{number}"))

    known = [each for each in begun if bulks.find(*each)]
    assert known == [
        ("p1", "k5"), ("p2", "k7"), ("p2", "k8"), ("p3", "k10"), ("p3", "k11"),
    ]  # fmt: skip


async def test_ended_runs_are_rerun_once_in_batches_and_the_rest_is_told(
    web: httpx.AsyncClient, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "BATCH", 2)
    failed = []
    for n in range(5):
        lease = await claimed(ledger, input=n)
        await ledger.fail(lease, "E")
        failed.append(lease.run_id)
    first = (await web.post(f"/v1/runs/{failed[0]}/rerun", json={})).json()
    form = await confirmed_form(web, "rerun", "error:E since:1h") | {"reason": "fixed"}

    done = await result(web, await web.post("/p/test/bulk", data=form))

    assert done["done"] == 5
    told = {each["run_id"]: each for each in done["outcomes"]}
    assert told[str(failed[0])]["what"] == "rerun before"
    assert told[str(failed[0])]["new_run_id"] == first["run_id"]
    assert len(await ledger.runs(state=State.PENDING)) == 5
    page = await web.get(f"/p/test/bulk/{form['key']}")
    assert "5 done, 0 refused" in words_of(page)
    assert 'http-equiv="refresh"' not in page.text


async def test_the_api_goes_batch_by_batch_with_the_moment_of_the_preview(
    web: httpx.AsyncClient, ledger: Ledger
) -> None:
    for _ in range(3):
        await ledger.submit("page")
    asked: dict[str, Any] = {"action": "cancel", "query": "kind:page"}
    seen = (await web.post("/v1/bulk/preview", json=asked)).json()
    assert (seen["matching"], seen["is_all"], len(seen["runs"])) == (3, True, 3)
    assert seen["query"].startswith("state:pending,running,")
    asked |= {"moment": seen["moment"], "reason": "why", "limit": 2, "actor": "ann"}
    first = (await web.post("/v1/bulk", json=asked)).json()
    second = (await web.post("/v1/bulk", json=asked | {"before": first["older"]})).json()

    assert [len(each["outcomes"]) for each in (first, second)] == [2, 1]
    assert second["older"] is None
    assert {(await ledger.history(run))[-1].actor for run in seen["runs"]} == {"ann"}


BAD_BULKS: tuple[tuple[dict[str, Any], str], ...] = (
    ({"query": " "}, "invalid-value"), ({"query": "wroker:w7"}, "invalid-query"),
    ({"query": "cost:>1"}, "invalid-value"), ({"action": "delete"}, "invalid-value"),
    ({"query": "state:completed"}, "invalid-value"), ({"reason": None}, "invalid-value"),
    ({"reason": " "}, "invalid-value"), ({"limit": 0}, "invalid-value"),
    ({"before": "x"}, "invalid-value"), ({"moment": "2026-01-31T12:00"}, "invalid-value"),
    ({"query": "kind:a\u202e"}, "invalid-query"), ({"reason": "a\u0000"}, "invalid-value"),
)  # fmt: skip


async def test_bad_bulks_are_refused_and_do_nothing(
    web: httpx.AsyncClient, ledger: Ledger, subtests: pytest.Subtests
) -> None:
    for change, code in BAD_BULKS:
        with subtests.test(f"{change}"):
            run = await ledger.submit("page")
            asked = {"action": "cancel", "query": "kind:page", "reason": "why"} | change
            answer = await web.post("/v1/bulk", json=asked)
            if change != {"query": "cost:>1"}:  # led by the states that are meant
                assert (answer.status_code, answer.json()["code"]) == (422, code), answer.text
            assert (await ledger.get(run.run_id)).version == 1


async def test_a_bulk_needs_the_rights_to_read_and_to_submit(ledger: Ledger) -> None:
    run = await ledger.submit("page")
    asked = {"action": "cancel", "query": "kind:page", "reason": "why"}
    form = asked | {"q": "kind:page", "moment": "2030-01-01T00:00Z", "key": "0123456789abcdef"}
    for rights in (["read"], ["submit"]):
        _, secret = await token(ledger, rights)
        async with calling(app(ledger), secret) as client:
            assert (await client.post("/v1/bulk", json=asked)).status_code == 403
            await sign_in(client, secret)
            assert (await client.post("/p/test/bulk", data=form)).status_code == 403
    assert (await ledger.get(run.run_id)).version == 1


async def test_a_bulk_stops_where_it_is_told_to(
    web: httpx.AsyncClient, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "BATCH", 1)
    for _ in range(40):
        await ledger.submit("page")
    form = await confirmed_form(web, "cancel", "kind:page") | {"reason": "why"}
    sent = await web.post("/p/test/bulk", data=form)
    assert (await web.post(sent.headers["location"] + "/abort")).status_code == 303
    done = await result(web, sent)
    assert done["aborted"]
    assert done["done"] < 40
    assert (await web.get("/p/test/bulk/unknown")).status_code == 404


async def test_the_key_of_one_bulk_begins_no_other(web: httpx.AsyncClient, ledger: Ledger) -> None:
    """Else the second would look as if it were on its way, and never be."""
    for kind in ("page", "other"):
        await ledger.submit(kind)
    form = await confirmed_form(web, "cancel", "kind:page") | {"reason": "why"}
    await result(web, await web.post("/p/test/bulk", data=form))
    for change in ({"q": "kind:other"}, {"reason": "because"}):
        assert (await web.post("/p/test/bulk", data=form | change)).status_code == 422
    assert [run.kind for run in await ledger.runs(state=State.PENDING)] == ["other"]


async def test_counting_ends_and_says_so(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runfold.ledger.reading.search_statements.EXAMINED", 3)
    for n in range(5):
        await ledger.submit("page", tags=["a"] if n == 4 else [])
    every = await bulk.preview(ledger, await bulk.bulk_of(ledger, "cancel", "kind:page"))
    assert every.in_words == "more than 3 runs"
    monkeypatch.setattr("runfold.ledger.reading.run_lists.FEW", 0)
    few = await bulk.preview(ledger, await bulk.bulk_of(ledger, "cancel", "kind:page tag:a"))
    assert few.in_words == "1 run of the newest 3"
    with pytest.raises(InvalidValue, match="no time zone"):
        await bulk.bulk_of(ledger, "cancel", "kind:a", few.bulk.moment.replace(tzinfo=None))
