"""Pages for those who operate: workers, kinds, what-if and the archive."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

import httpx
import pytest

from runfold.console.web import app
from runfold.console.web.pages import cost, overview, workers
from runfold.console.web.pages.whatif import plot
from runfold.ledger import Ledger
from runfold.projections import CatchUp, install
from runfold.projections.models.counts import RUN_COUNTS
from runfold.projections.models.spending import SPENDING
from runfold.workers.duties.scheduler import Scheduler
from tests.support.runs import TINY, abandoned, claimed, superseded
from tests.support.waiting import until
from tests.support.web import calling, sign_in, token, words_of


async def test_a_list_that_ends_early_says_so(
    web: httpx.AsyncClient, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    await claimed(ledger)
    await install(ledger.pool, SPENDING)
    await CatchUp(ledger.pool, SPENDING).to_the_end()
    for path, module, name, said in (
        ("/cost", cost, "MOST", "The newest 1 lines"),
        ("/workers", workers, "HOLDERS", "The 1 workers whose leases end first"),
        ("", overview, "_MOST", "0+</strong>of them run out"),
    ):
        assert said[:12] not in words_of(await web.get(f"/p/test{path}"))
        monkeypatch.setattr(module, name, 1)
        assert said in words_of(await web.get(f"/p/test{path}"))


async def test_leases_that_end_first_come_first_and_pages_follow(
    web: httpx.AsyncClient, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "MOST", 2)
    for ttl in (300, 100, 200):
        await claimed(ledger, f"w:{ttl}", ttl=ttl)
    gone = await abandoned(ledger, "w:gone")
    first = (await web.get("/p/test/workers.json")).json()
    assert [lease["worker_id"] for lease in first["leases"]] == ["w:gone", "w:100"]
    second = (await web.get(f"/p/test/workers.json?{first['onward']}")).json()
    assert [lease["worker_id"] for lease in second["leases"]] == ["w:200", "w:300"]
    assert second["onward"] is None
    page = (await web.get("/p/test/workers")).text
    assert "ran out" in page
    assert f"/runs/{gone.run_id}" in page
    assert "in 1m" in page
    assert (await web.get("/p/test/workers?after=2026-01-01T00:00")).status_code == 422


async def test_refused_writes_stand_beside_the_leases(
    web: httpx.AsyncClient, ledger: Ledger
) -> None:
    old, _ = await superseded(ledger)
    await ledger.heartbeat([old])
    [refused] = (await web.get("/p/test/workers.json")).json()["refusals"]
    assert (refused["run_id"], refused["name"]) == (str(old.run_id), "heartbeat")


async def test_a_kind_is_limited_with_a_reason_and_its_next_due_time_is_shown(
    web: httpx.AsyncClient, ledger: Ledger
) -> None:
    await ledger.submit("page")
    await ledger.schedule("nightly", "page", cron="0 3 * * *")
    path, asked = "/p/test/kinds", {"kind": "page", "change": "limit", "max_running": "3"}
    for bad in ({}, {"reason": " "}, {"reason": "r", "max_running": "0"}):
        assert (await web.post(path, data=asked | bad)).status_code == 422
    assert await ledger.kind_history("page") == []
    assert (await web.post(path, data=asked | {"reason": "r"})).status_code == 303
    page = (await web.get(path)).text
    assert re.search(r"page</a></th>.*?in \d+[hms]", page, re.DOTALL)
    lifted = asked | {"reason": "r", "max_running": ""}
    assert (await web.post(path, data=lifted)).status_code == 303
    assert [each.max_running for each in await ledger.kind_history("page")] == [3, None]


async def test_forms_give_back_a_name_with_a_joiner_as_it_is(
    web: httpx.AsyncClient, ledger: Ledger
) -> None:
    """As Persian words and some emoji have; what is shown of it is escaped."""
    kind = "\u06af\u0632\u0627\u0631\u0634\u200c\u0647\u0627"
    await ledger.submit(kind)
    page = (await web.get("/p/test/kinds")).text
    [sent] = re.findall(r'name="kind" value="([^"]*)"', page)
    assert page.count("\u200c") == 1
    asked = {"kind": sent, "change": "pause", "reason": "r"}
    assert (await web.post("/p/test/kinds", data=asked)).status_code == 303
    assert [each.reason for each in await ledger.kind_history(kind)] == ["r"]
    bulk = await web.get("/p/test/bulk", params={"q": f"kind:{kind}"})
    queries = re.findall(r'name="q" value="([^"]*)"', bulk.text)
    assert [query.endswith(f"kind:{kind}") for query in queries] == [True, True]
    bad = await web.get("/p/test/runs", params={"q": "kind:a\u202eb"})
    assert "\u202e" not in bad.text


async def test_a_schedule_is_paused_resumed_and_run_from_its_page_on_record(
    web: httpx.AsyncClient, ledger: Ledger
) -> None:
    made = await ledger.schedule("nightly", "page", {"deep": 1}, cron="0 3 * * *", ahead=True)
    path, asked = "/p/test/schedules", {"name": "nightly", "reason": "a flood"}
    for bad in ({}, {"change": "run", "reason": " "}, {"change": "drop"}):
        assert (await web.post(path, data=asked | bad)).status_code == 422
    assert (await web.post(path, data={**asked, "change": "run", "name": "x"})).status_code == 404
    assert await ledger.runs() == []

    assert (await web.post(path, data=asked | {"change": "pause"})).status_code == 303
    await ledger.pool.execute("UPDATE ledger.schedule SET next_at = now() - interval '3 d'")
    await Scheduler(ledger).tick()
    assert await ledger.runs() == [], "a paused schedule submits nothing"
    page = words_of(await web.get("/p/test/kinds"))
    assert "‖ paused</span> a flood" in page
    ran = await web.post(path, data=asked | {"change": "run"})
    [run] = await ledger.runs()
    assert ran.headers["location"].endswith(f"/runs/{run.run_id}")
    assert (run.kind, run.input) == ("page", {"deep": 1})
    await web.post(path, data=asked | {"change": "resume"})
    [after] = await ledger.schedules()
    assert (after.is_paused, after.next_at) == (False, made.next_at), "what it missed is not due"
    orders = [each for each in await ledger.control_history() if "schedule" in each.type]
    assert [(each.type, each.reason) for each in orders] == [
        ("schedule.added", None),
        ("schedule.changed", "a flood"),
        ("schedule.run", "a flood"),
        ("schedule.changed", "a flood"),
    ]


async def test_a_schedule_is_changed_by_those_with_the_right_to(ledger: Ledger) -> None:
    await ledger.schedule("nightly", "page", cron="0 3 * * *", ahead=True)
    _, secret = await token(ledger, ["read", "admin", "submit"])
    _, may = await token(ledger, ["read", "schedule"])
    asked = {"name": "nightly", "reason": "r"}
    async with calling(app(ledger)) as client:
        await sign_in(client, secret)
        for change in ("pause", "run"):
            answer = await client.post("/p/test/schedules", data=asked | {"change": change})
            assert answer.status_code == 403
        await sign_in(client, may)
        foreign = await client.post(
            "/p/test/schedules",
            data=asked | {"change": "pause"},
            headers={"Origin": "https://evil.example"},
        )
        run = await client.post("/p/test/schedules", data=asked | {"change": "run"})
        assert (foreign.status_code, run.status_code) == (403, 403), "run now takes submit as well"
    assert not (await ledger.schedules())[0].is_paused
    assert await ledger.runs() == []
    assert len([each for each in await ledger.control_history() if "schedule" in each.type]) == 1


async def test_sliders_judge_the_recorded_beats(web: httpx.AsyncClient, ledger: Ledger) -> None:
    lease = await abandoned(ledger)
    await ledger.heartbeat([lease])
    await ledger.complete(lease)
    shorter = f"/p/test/whatif.json?ttl={TINY / 10}&reaper={TINY / 10}"
    judged = (await web.get(shorter)).json()
    assert judged["outcomes"] == {"reaped": 1}
    assert judged["verdicts"][0]["run_id"] == str(lease.run_id)
    assert judged["goes_on_at"] is None
    page = (await web.get("/p/test/whatif?ttl=30")).text
    assert "No run would have gone differently" in page
    assert 'type="range" name="ttl"' in page
    assert "<svg" in page
    for bad in ("ttl=-1", "ttl=x", "max_attempts=1e9", "since=soon", "since=9999-01-01T00:00Z"):
        assert (await web.get(f"/p/test/whatif?{bad}")).status_code == 422, bad


async def test_a_page_of_beats_ends_and_leads_on(
    web: httpx.AsyncClient, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runfold.projections.whatif._PAGE", 4)
    monkeypatch.setattr("runfold.console.web.pages.whatif.EVENTS", 4)
    runs = [await claimed(ledger) for _ in range(3)]
    judged, seen = (await web.get("/p/test/whatif.json")).json(), 0
    while judged["goes_on_at"]:
        seen += judged["runs"] - 1
        path = "/p/test/whatif.json"
        judged = (await web.get(path, params={"since": judged["goes_on_at"]})).json()
    assert seen + judged["runs"] == len(runs)


def test_a_plot_has_what_is_longer_in_its_last_bar() -> None:
    drawn = plot(Counter({0: 4, 60: 2, 3_600: 1}), 60)
    assert [round(left) for left, _, _ in drawn.bars] == [0, 50, 98]
    assert [height for _, height, _ in drawn.bars] == [100, 50, 25]
    assert drawn.line == 50
    assert drawn.bars[-1][2].endswith("or longer")


async def test_a_month_is_held_and_released_with_reasons(
    web: httpx.AsyncClient, ledger: Ledger
) -> None:
    run = await ledger.submit("page")
    month, path = f"{run.created_at:%Y-%m}", "/p/test/archive"
    asked = {"target": month, "change": "hold", "reason": "audit"}
    for bad in ({"reason": " "}, {"target": "2026-13"}, {"target": "x"}, {"change": "drop"}):
        assert (await web.post(path, data=asked | bad)).status_code == 422
    assert (await web.post(path, data=asked | {"change": "release"})).status_code == 409
    assert (await web.post(path, data=asked)).status_code == 303
    by_run = asked | {"target": str(run.run_id), "reason": "<b>"}
    assert (await web.post(path, data=by_run)).status_code == 303
    shown = (await web.get(f"{path}.json")).json()
    [status] = [each for each in shown["months"] if each["month"] == month]
    assert (status["state"], status["holds"], status["next"]) == ("open", 2, "not over")
    assert [each["type"] for each in shown["history"]] == ["hold.placed", "hold.placed"]
    assert "&lt;b&gt;" in (await web.get(path)).text
    assert (await web.post(path, data=asked | {"change": "release"})).status_code == 303
    assert [each["reason"] for each in (await web.get(f"{path}.json")).json()["holds"]] == ["<b>"]


async def test_a_projection_is_rebuilt_from_its_page_and_put_in_its_place(
    web: httpx.AsyncClient, ledger: Ledger
) -> None:
    run = await ledger.submit("parse")
    await install(ledger.pool, RUN_COUNTS)
    await CatchUp(ledger.pool, RUN_COUNTS).to_the_end()
    path = "/p/test/projections"
    assert (await web.post(path, data={"name": "no_such"})).status_code == 422
    secret = "sk-" + "a1B2" * 10
    asked = {
        "name": "run_counts",
        "reason": f"a doubt <b> {secret} ",
    }  # a blank at its end is no fault
    for bad in ({"reason": " "}, {"reason": ""}, {"reason": "x" * 2_001}):
        assert (await web.post(path, data=asked | bad)).status_code == 422
    assert (await web.get(f"{path}.json")).json()["rebuilds"]["run_counts"] is None
    assert (await web.post(path, data=asked)).status_code == 303

    async def told() -> dict[str, Any]:
        return dict((await web.get(f"{path}.json")).json()["rebuilds"]["run_counts"])

    async def is_over() -> bool:
        found = await told()
        return bool(found["is_done"] or found["error"])

    await until(is_over)
    found = await told()
    assert (found["error"], found["wrong"], found["progress"]["events"]) == (None, 0, 1)
    page = (await web.get(path)).text
    assert "✔ swapped" in page
    assert "no wrong rows" in page
    orders = await ledger.control_history(everywhere=True)
    noted = [each for each in orders if each.subject == "projection:run_counts"]
    assert [each.type for each in noted] == ["rebuild.begun", "rebuild.swapped"]
    assert all((each.reason or "").startswith("a doubt <b>") for each in noted)
    assert secret not in str(noted)
    assert json.loads(noted[1].facts or "")["wrong"] == 0
    page = (await web.get("/p/test/audit/all")).text
    assert page.count("a doubt &lt;b&gt;") == 2

    await ledger.pool.execute(ASIDE, RUN_COUNTS.table, run.run_id)
    assert (await web.post(path, data=asked)).status_code == 303
    await until(is_over)
    assert "nothing to compare with" in " ".join((await web.get(path)).text.split())


ASIDE = """
INSERT INTO ledger.projection_aside
  (relation, name, project_id, run_id, first_position, last_position)
VALUES ($1, 'run_counts', 'test', $2, 1, 1)
"""


async def test_a_rebuild_that_was_begun_elsewhere_shows_how_far_it_is(
    web: httpx.AsyncClient, ledger: Ledger
) -> None:
    await install(ledger.pool, RUN_COUNTS)
    begun = await ledger.pool.fetchval(
        "INSERT INTO ledger.rebuild (projection, definition) VALUES ('run_counts', 'd')"
        " RETURNING rebuild_id"
    )
    await ledger.pool.execute(
        "INSERT INTO ledger.rebuild_range (rebuild_id, first, last, done_at)"
        " SELECT $1, ledger.uuid7(), ledger.uuid7(), CASE WHEN n < 2 THEN now() END"
        " FROM generate_series(1, 4) AS n",
        begun,
    )
    shown = (await web.get("/p/test/projections.json")).json()["elsewhere"]
    assert [(name, each["done"], each["ranges"]) for name, each in shown.items()] == [
        ("run_counts", 1, 4)
    ]
    page = (await web.get("/p/test/projections")).text
    assert "begun elsewhere" in page
    assert "1 of 4 ranges" in page
