"""The page of runs: numbers beside what can be chosen, and queries saved under names."""

from __future__ import annotations

from urllib.parse import parse_qs

import asyncpg
import httpx
import pytest

from runfold.console.web.pages.counts import Counts, facets
from runfold.ledger import Ledger, views
from runfold.ledger.errors import InvalidQuery, InvalidValue
from runfold.projections import CatchUp, install
from runfold.projections.models.counts import RUN_COUNTS
from tests.support.databases import PROJECT
from tests.support.logins import grant, login_of, with_login

RECORDED = "SELECT name, number, query, actor, credential FROM ledger.view_event ORDER BY number"
COUNTS = Counts(
    {("a", "pending"): 3, ("a", "failed"): 1, ("b<", "failed"): 2, ("c", "completed"): 9}, None
)


def test_a_facet_is_counted_within_the_other_choice() -> None:
    found = facets('state:failed -tag:x kind:a "k"', COUNTS)
    assert {each.value: each.number for each in found["kind"]} == {"a": 1, "b<": 2, "c": 0}
    states = {each.value: each.number for each in found["state"]}
    assert (states["failed"], states["pending"], states["completed"]) == (1, 3, 0)
    links = {each.value: parse_qs(each.link)["q"] for each in found["kind"] + found["state"]}
    assert links["a"] == ['state:failed -tag:x "k"']
    assert links["b<"] == ['kind:"b<" state:failed -tag:x "k"']
    assert links["failed"] == ['-tag:x kind:a "k"']
    assert [each.value for each in found["state"] if each.is_chosen] == ["failed"]


def test_without_the_projection_states_have_no_numbers() -> None:
    found = facets('state:"', None)
    assert {each.number for each in found["state"]} == {None}
    assert found["kind"] == []


async def test_numbers_are_of_every_kind_however_many_there_are(
    web: httpx.AsyncClient, ledger: Ledger
) -> None:
    await ledger.submit_many({"kind": f"kind-{number}"} for number in range(1_001))
    await install(ledger.pool, RUN_COUNTS)
    await CatchUp(ledger.pool, RUN_COUNTS).to_the_end()

    assert (await web.get("/p/test.json")).json()["counts"]["pending"] == 1_001


async def test_a_view_is_saved_for_all_changed_and_removed(
    web: httpx.AsyncClient, ledger: Ledger
) -> None:
    path, asked = "/p/test/views", {"name": "mine <b>", "q": "state:failed kind:page"}
    assert (await web.post(path, data=asked)).status_code == 303
    page = (await web.get("/p/test/runs")).text
    assert "★ mine &lt;b&gt;" in page
    assert 'href="?q=state%3Afailed%20kind%3Apage"' in page
    assert "Remove the view" in (await web.get("/p/test/runs", params={"q": asked["q"]})).text
    assert (await web.post(path, data=asked | {"q": "state:failed"})).status_code == 303
    assert not await views.save(ledger.project, "mine <b>", "state:failed")
    [view] = await views.views(ledger.project)
    assert (view.query, view.actor) == ("state:failed", ledger.actor)
    assert (await web.post(path, data=asked | {"change": "remove"})).status_code == 303
    assert await views.views(ledger.project) == []


async def test_who_saved_changed_and_removed_a_view_is_on_record(
    ledger: Ledger, database: str, connection: asyncpg.Connection
) -> None:
    await views.save(ledger.project, "mine", "state:failed")
    await views.save(ledger.project, "mine", "kind:a")
    assert not await views.save(ledger.project, "mine", "kind:a")
    async with (
        with_login(database, "runfold_worker", rights=["read"]) as url,
        Ledger.open(url, PROJECT) as reader,
    ):
        assert await views.drop(reader.project, "mine")
        assert not await views.drop(reader.project, "mine")
        assert await reader.pool.fetch(RECORDED) == []  # which is for auditors
        await grant(connection, login_of(url), ["audit"])
        events = [tuple(row) for row in await reader.pool.fetch(RECORDED)]
    owner = await ledger.pool.fetchval("SELECT session_user::text")
    assert events == [
        ("mine", 1, "state:failed", ledger.actor, owner),
        ("mine", 2, "kind:a", ledger.actor, owner),
        ("mine", 3, None, login_of(url), login_of(url)),
    ]


BAD_VIEWS = (
    {"name": "", "q": "kind:a"}, {"name": "a", "q": ""}, {"name": "a", "q": "wroker:a"},
    {"name": "a\u202e", "q": "kind:a"}, {"name": "a", "q": "kind:a" + " " * 1_000},
    {"name": "x" * 201, "q": "kind:a"}, {"name": "a", "q": "kind:a", "change": "x"},
)  # fmt: skip


async def test_bad_views_are_refused(
    web: httpx.AsyncClient, ledger: Ledger, subtests: pytest.Subtests
) -> None:
    for asked in BAD_VIEWS:
        with subtests.test(f"{asked}"[:80]):
            assert (await web.post("/p/test/views", data=asked)).status_code == 422
            assert await views.views(ledger.project) == []


async def test_a_project_has_so_many_views_and_no_more(ledger: Ledger) -> None:
    for n in range(views.MOST):
        await views.save(ledger.project, f"v{n}", "kind:a")
    with pytest.raises(InvalidValue, match="50 views"):
        await views.save(ledger.project, "one more", "kind:a")
    assert await views.save(ledger.project, "v0", "kind:b")
    with pytest.raises(InvalidQuery):
        await views.save(ledger.project, "v0", "kind:")


async def test_sql_refuses_what_python_refuses(
    ledger: Ledger, connection: asyncpg.Connection
) -> None:
    change = "SELECT ledger.change_view('test', 'ann', $1, $2)"
    for name, query in ((" a", "kind:a"), ("a", ""), ("a", "x" * 1_001), (None, "kind:a")):
        with pytest.raises(asyncpg.InvalidParameterValueError):
            await connection.execute(change, name, query)
