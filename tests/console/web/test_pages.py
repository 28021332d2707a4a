"""The pages: what they show and decide, for whom, and that no content of a run can act in them."""

from __future__ import annotations

import asyncio
import csv
import html
import json
import re
from collections.abc import AsyncIterator
from datetime import UTC
from typing import Any

import asyncpg
import httpx
import pytest
from fastapi import Request

from runfold.console.web import app
from runfold.console.web.pages import rendering
from runfold.console.web.pages.rendering import ASSETS
from runfold.console.web.pages.viewing import failed
from runfold.ledger import Ledger, State
from runfold.ledger.errors import AccessDenied, DatabaseRefused
from runfold.ledger.events import ApprovalGranted, NoteAdded, StepCompleted
from runfold.projections import CatchUp, install
from runfold.projections.models.counts import RUN_COUNTS
from runfold.projections.models.spending import SPENDING
from runfold.projections.state.repair import repair
from tests.support.runs import claimed, superseded, waiting
from tests.support.web import calling, token, words_of

MULTIPART = "multipart/form-data; boundary=a"
HOSTILE = "<script>alert(1)</script>\"'><b>\u202etxt\u2066\x1b[31m{{7*7}}"
OUR_SCRIPT = re.compile(r'<script src="/assets/console\.js\?v=[0-9a-f]{12}" defer></script>')
EVIL = ("<script", "t<b>", "w<u>", "k<i>", "\u202e", "\u2066", "\x1b", " style=", "onerror=")


@pytest.fixture
async def stranger(ledger: Ledger) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server that asks for tokens."""
    async with calling(app(ledger)) as client:
        yield client


async def an_asking_run(ledger: Ledger, **content: Any) -> tuple[str, int]:
    """Return a run that waits for a decision, and the version of its request."""
    lease = await waiting(ledger, State.WAITING_APPROVAL, park=True, content=content)
    return str(lease.run_id), (await ledger.get(lease.run_id)).version


async def every_path(ledger: Ledger) -> list[str]:
    """Return the address of each page, over a ledger in which everything is hostile."""
    lease = await claimed(ledger, "w<b>", key="k<b>", tags=["t<b>"])
    await ledger.append(lease, StepCompleted(name="s<b>", output={"x": HOSTILE}))
    await ledger.append(lease, NoteAdded(text=HOSTILE))
    await ledger.fail(lease, "E<b>", error_detail=HOSTILE)
    asking, version = await an_asking_run(ledger, prompt=HOSTILE, show={"amount": HOSTILE})
    await claimed(ledger, "w<u>")
    await ledger.submit("k<i>", {"in": HOSTILE})
    await ledger.pause_kind("k<i>", reason="<script>")
    hook, _ = await ledger.webhooks.add("https://x/<b>", events=["run.failed"], reason="<script>")
    base = "/p/test"
    parts = ["", "/runs", "/runs?q=tag:%22t%3Cb%3E%22", "/approvals", "/workers", "/kinds"]
    parts += ["/cost", "/projections", "/integrity", f"/integrity?run={lease.run_id}", "/audit"]
    parts += [f"/runs/{lease.run_id}{rest}" for rest in ("", "?attempt=1", "?beats=true&from=1")]
    parts += [f"/runs/{lease.run_id}/state?at=3&vs=1", f"/runs/{lease.run_id}/events/3"]
    parts += [
        "/whatif?ttl=1&max_attempts=1",
        "/archive",
        "/webhooks",
        f"/webhooks/{hook}",
        "/bulk",
        "/bulk?action=rerun&q=error:%22E%3Cb%3E%22",
    ]
    parts += [f"/runs/{lease.run_id}/tree", f"/runs/{lease.run_id}/raw?from=1"]
    parts += [f"/approvals/{asking}/{version}", f"/runs/{asking}", "/approvals?show=decided"]
    parts += ["/approvals?show=snoozed", "/audit/all"]
    return [base + part for part in parts]


async def test_every_page_shows_hostile_content_as_text_and_runs_no_script(
    web: httpx.AsyncClient, ledger: Ledger
) -> None:
    for path in await every_path(ledger):
        page = await web.get(path)
        assert page.status_code == 200, path
        assert "<!doctype html>" in page.text
        written = OUR_SCRIPT.sub("", page.text, count=1)
        for evil in EVIL:
            assert evil not in written, (path, evil)
        policy = page.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; connect-src 'self'; style")
        assert "unsafe" not in policy


async def test_every_page_is_json_too_and_a_list_is_csv(
    web: httpx.AsyncClient, ledger: Ledger
) -> None:
    for path in await every_path(ledger):
        plain, _, query = path.partition("?")
        answer = await web.get(f"{plain}.json?{query}")
        assert answer.status_code == 200, path
        assert isinstance(answer.json(), dict)
    table = await web.get("/p/test/runs.csv?q=state:failed")
    assert table.headers["content-type"].startswith("text/csv")
    heading, row = table.text.splitlines()
    assert heading.startswith("run_id,kind,state")
    assert "E<b>" in row


async def test_a_cell_of_csv_is_no_formula(web: httpx.AsyncClient, ledger: Ledger) -> None:
    await ledger.submit("=cmd()")
    assert ",'=cmd()," in (await web.get("/p/test/runs.csv")).text


async def test_the_facts_of_an_event_are_written_as_the_api_has_them_in_the_viewers_zone(
    web: httpx.AsyncClient, ledger: Ledger
) -> None:
    digest = "ab" * 32
    web.cookies.set("runfold_zone", "Asia/Tokyo")
    await ledger.ask_approval(await claimed(ledger), "Pay?", wait=600)
    ended = await ledger.complete(await claimed(ledger), output_sha256=digest)
    [asking] = await ledger.runs(state="waiting_approval")
    run, asked = f"/p/test/runs/{ended.run_id}", f"/p/test/runs/{asking.run_id}"

    assert f"output_sha256={digest}<" in (await web.get(run)).text
    assert f"<dd>{digest}</dd>" in (await web.get(f"{run}/events/{ended.version}")).text
    [until] = re.findall("wait_until=([0-9-]+ [0-9:.]+ JST)<", (await web.get(asked)).text)
    assert f"<dd>{until}</dd>" in (await web.get(f"{asked}/events/{asking.version}")).text


async def test_a_list_in_a_cell_of_csv_is_json(web: httpx.AsyncClient, ledger: Ledger) -> None:
    await ledger.webhooks.add("https://x/", events=["run.completed", "run.failed"], kinds=["a, b"])
    [row] = csv.DictReader((await web.get("/p/test/webhooks.csv")).text.splitlines())
    assert json.loads(row["events"]) == ["run.completed", "run.failed"]
    assert json.loads(row["kinds"]) == ["a, b"]


async def test_the_other_forms_of_a_page_of_runs_have_the_same_runs(
    web: httpx.AsyncClient, ledger: Ledger
) -> None:
    old, *_, new = [str((await ledger.submit("parse")).run_id) for _ in range(3)]
    page = words_of(await web.get("/p/test/runs", params={"before": new, "limit": 1}))
    links = re.findall(r'href="(/p/test/runs\.[a-z]+\?[^"]*)"', page)
    assert [link.partition("?")[0] for link in links] == ["/p/test/runs.json", "/p/test/runs.csv"]
    for link in links:
        answer = (await web.get(html.unescape(link))).text
        assert new not in answer
        assert old not in answer
        assert answer.count("parse") == 1


async def test_a_project_may_have_the_name_of_a_page(
    web: httpx.AsyncClient, ledger: Ledger, database: str
) -> None:
    async with Ledger.open(database, "whatif", create_project=True):
        page = await web.get("/p/whatif/whatif?ttl=9")
    assert 'href="/p/whatif/whatif.json?ttl=9"' in page.text


async def test_a_run_page_draws_every_attempt_lease_and_refusal(
    web: httpx.AsyncClient, ledger: Ledger
) -> None:
    old, new = await superseded(ledger)
    await ledger.heartbeat([old])
    await ledger.complete(new)

    page = (await web.get(f"/p/test/runs/{old.run_id}")).text
    assert 'class="bar lost"' in page
    assert "lease.expired" in page
    assert "w:zombie" in page
    assert "Refused writes" in page
    assert 'class="bar held"' in page
    assert "compensates #" in page


@pytest.mark.slow
async def test_a_run_of_ten_thousand_events_is_a_page_of_a_window(
    web: httpx.AsyncClient, ledger: Ledger
) -> None:
    lease = await claimed(ledger)
    notes = [NoteAdded(text=f"page {n}", name="page") for n in range(20)]
    async with ledger.pool.acquire() as one:
        # Appended by heartbeats, one by one, they take ten times as long.
        await one.execute("ALTER TABLE ledger.event DISABLE TRIGGER fold_run_state")
        await one.execute(_MANY, "test", lease.run_id, lease.token)
        await one.execute("ALTER TABLE ledger.event ENABLE ALWAYS TRIGGER fold_run_state")
    await repair(ledger, [lease.run_id], actor="filler", reason="its beats are not folded")
    await asyncio.gather(*(ledger.append(lease, note) for note in notes))
    assert (await ledger.get(lease.run_id)).version > 10_000

    path = f"/p/test/runs/{lease.run_id}?beats=true"
    page = await web.get(path)
    assert len(page.text) < 300_000
    assert page.text.count("<tr id=") == 200
    assert "later" in page.text


_MANY = """
WITH RECURSIVE beat AS (
  SELECT run.version, run.hash, run.updated_at AS at, run.lease_until AS until, run.token,
    run.worker_id AS worker
  FROM ledger.run_state AS run WHERE (run.project_id, run.run_id) = ($1, $2)
  UNION ALL
  SELECT beat.version + 1, ledger.event_hash(beat.hash, $1, $2, beat.version + 1, beat.at,
    'lease.heartbeat', beat.worker, token => beat.token, lease_until => beat.until,
    credential => ledger.credential()), beat.at, beat.until, beat.token, beat.worker
  FROM beat WHERE beat.version < 10000
)
INSERT INTO ledger.event (project_id, run_id, version, recorded_at, type, actor, token, lease_until,
  credential, hash)
SELECT $1, $2, version, at, 'lease.heartbeat', worker, token, until, ledger.credential(), hash
FROM beat WHERE version > $3
"""


async def test_the_state_at_a_version_stands_beside_another(
    web: httpx.AsyncClient, ledger: Ledger
) -> None:
    lease = await claimed(ledger)
    await ledger.complete(lease, {"done": True})
    page = (await web.get(f"/p/test/runs/{lease.run_id}/state?at=3&vs=2")).text
    assert 'type="range"' in page
    changed = r'class="changed".*state</th><td>&#34;running&#34;</td><td>&#34;completed&#34;'
    assert re.search(changed, page)


async def test_a_query_that_is_refused_is_shown_with_its_remedy(web: httpx.AsyncClient) -> None:
    page = await web.get("/p/test/runs?q=wroker:w7")
    assert page.status_code == 422
    assert "there is no field &#39;wroker&#39;" in page.text
    assert (await web.get("/p/test/runs.json?q=wroker:w7")).json()["code"] == "invalid-query"


async def test_pages_of_runs_lead_both_ways(web: httpx.AsyncClient, ledger: Ledger) -> None:
    ids = [str((await ledger.submit("parse")).run_id) for _ in range(5)][::-1]
    first = (await web.get("/p/test/runs?limit=2")).text
    older = re.search(r'rel="next" href="\?([^"]+)"', first)
    assert older is not None
    second = words_of(await web.get(f"/p/test/runs?{older[1].replace('&amp;', '&')}"))
    assert ids[2] in second
    assert f"/runs/{ids[1]}" not in second
    newer = re.search(r'rel="prev" href="\?([^"]+)"', second)
    assert newer is not None
    assert ids[0] in (await web.get(f"/p/test/runs?{newer[1].replace('&amp;', '&')}")).text


async def test_an_approval_shows_what_is_decided_and_decides_that_alone(
    web: httpx.AsyncClient, ledger: Ledger
) -> None:
    run_id, version = await an_asking_run(ledger, prompt="Refund A-17?", show={"amount": 250})
    path = f"/p/test/approvals/{run_id}/{version}"
    page = (await web.get(path)).text
    assert "&#34;amount&#34;: 250" in page
    asked = {"decision": "approve", "reason": "she\r\ncalled", "person": "ann"}
    changed = await web.post(f"/p/test/approvals/{run_id}/{version - 1}", data=asked)
    assert changed.status_code == 409
    assert (await ledger.get(run_id)).state == State.WAITING_APPROVAL

    assert (await web.post(path, data=asked)).status_code == 303
    granted = (await ledger.history(run_id))[-1]
    assert isinstance(granted, ApprovalGranted)
    assert (granted.actor, granted.reason) == ("ann", "she\ncalled")
    decided = (await web.get("/p/test/approvals.json?show=decided")).json()["decided"]
    assert [(each["run_id"], each["actor"]) for each in decided] == [(run_id, "ann")]
    assert (await web.post(path, data=asked)).status_code == 409
    assert (await web.get(path)).status_code == 409

    await ledger.cancel(run_id)  # so that the next claim is of the next run
    later, asked_later = await an_asking_run(ledger, prompt="Refund A-18?")
    assert f"{run_id}/events/" in (await web.get(f"/p/test/approvals/{later}/{asked_later}")).text


async def test_a_post_from_another_origin_changes_nothing(
    web: httpx.AsyncClient, ledger: Ledger
) -> None:
    run_id, version = await an_asking_run(ledger, prompt="?")
    path = f"/p/test/approvals/{run_id}/{version}"
    asked = {"decision": "approve", "person": "ann"}
    for foreign in ({"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}):
        assert (await web.post(path, data=asked, headers=foreign)).status_code == 403
    assert (await web.get(path)).status_code == 200


async def test_a_stranger_signs_in_with_a_token_and_sees_what_it_may(
    stranger: httpx.AsyncClient, ledger: Ledger
) -> None:
    sent = await stranger.get("/p/test/runs?q=state:pending")
    assert sent.status_code == 303
    assert sent.headers["location"] == "/sign-in?to=/p/test/runs%3Fq%3Dstate%3Apending"
    assert (await stranger.get("/p/test/runs.json")).status_code == 401
    wrong = await stranger.post("/sign-in", data={"token": "rft_nothing", "to": "/p/test"})
    assert wrong.status_code == 403
    assert "set-cookie" not in wrong.headers

    _, secret = await token(ledger, ["read"])
    entered = await stranger.post("/sign-in", data={"token": secret, "to": "/p/test/runs"})
    assert entered.headers["location"] == "/p/test/runs"
    cookie = entered.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert (await stranger.get("/p/test/runs")).status_code == 200
    run_id, version = await an_asking_run(ledger, prompt="?")
    refused = await stranger.post(
        f"/p/test/approvals/{run_id}/{version}", data={"decision": "approve"}
    )
    assert refused.status_code == 403
    assert (await stranger.get("/p/test/audit")).status_code == 403


ELSEWHERE = ("//evil.example", "https://evil.example", "/\\evil", "/a\r\nb: c")


async def test_the_sign_in_leads_to_no_other_site(
    stranger: httpx.AsyncClient, ledger: Ledger, subtests: pytest.Subtests
) -> None:
    for to in ELSEWHERE:
        with subtests.test(to):
            _, secret = await token(ledger, ["read"])
            entered = await stranger.post("/sign-in", data={"token": secret, "to": to})
            assert entered.headers["location"] == "/"


async def test_theme_and_zone_are_remembered_and_every_time_names_its_zone(
    web: httpx.AsyncClient, ledger: Ledger
) -> None:
    run = await ledger.submit("parse")
    path = f"/p/test/runs/{run.run_id}"
    assert f"{run.created_at.astimezone(UTC):%H:%M:%S}" in (await web.get(path)).text
    said = {"theme": "dark", "zone": "Asia/Tokyo", "to": path}
    assert (await web.post("/view", data=said)).headers["location"] == path
    page = (await web.get(path)).text
    assert 'data-theme="dark"' in page
    assert " JST" in page
    assert (await web.post("/view", data={"zone": "Mars/Base"})).status_code == 422


WRONG_ADDRESSES = (
    ("/p/nowhere", 404), ("/p/test/runs/x", 422), ("/p/test/runs?before=x", 422),
    ("/p/test/runs/01890000-0000-7000-8000-000000000000", 404), ("/p/test/runs?limit=0", 422),
    ("/p/test/runs/01890000-0000-7000-8000-000000000000/state?at=999999999999", 422),
    ("/p/test/runs/01890000-0000-7000-8000-000000000000/events/999999999999", 404),
    ("/p/test/integrity?run=x", 422), ("/p/te%00st", 422),
)  # fmt: skip


async def test_an_asset_is_kept_only_as_that_of_its_own_version(web: httpx.AsyncClient) -> None:
    """During an upgrade a page of one server may ask another one for its script."""
    [own] = set(re.findall(r"/assets/console\.js\?v=(\w+)", (await web.get("/p/test")).text))
    kept = {v: await web.get("/assets/console.js", params={"v": v}) for v in (own, "0" * 12, "")}

    assert "immutable" in kept.pop(own).headers["cache-control"]
    assert {each.headers["cache-control"] for each in kept.values()} == {"no-store"}


async def test_an_upgrade_below_a_server_leaves_its_pages_alone(
    web: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replaced(*_: object, **__: object) -> None:
        raise OSError("the files are another version's")

    monkeypatch.setattr("builtins.open", replaced)
    monkeypatch.setattr("io.open", replaced)
    style = await web.get("/assets/console.css", params={"v": rendering.EDITION})
    assert (style.status_code, style.headers["content-type"][:8]) == (200, "text/css")
    fresh = rendering._ENVIRONMENT.overlay(cache_size=0)  # noqa: SLF001  that no cache answers
    assert fresh.get_template("layout.html").name == "layout.html"


async def test_a_wrong_address_is_a_page_that_says_so(
    web: httpx.AsyncClient, subtests: pytest.Subtests
) -> None:
    for path, status in WRONG_ADDRESSES:
        with subtests.test(path):
            page = await web.get(path)
            assert page.status_code == status
            assert 'class="problem"' in page.text
    with subtests.test("of no route"):
        browser = {"Accept": "text/html, */*"}
        page = await web.get("/p/test/runz", headers=browser)
        assert page.status_code == 404
        assert "there is no such page" in page.text
        assert 'class="problem"' in page.text
        form = await web.get("/p/test/views", headers=browser)  # it takes a form alone
        assert (form.status_code, form.headers["allow"]) == (405, "POST")
        assert 'class="problem"' in form.text
        assert (await web.get("/p/test/runz")).json()["code"] == "not-found"
        assert (await web.get("/v1/runz", headers=browser)).json()["code"] == "not-found"


async def test_counts_and_costs_come_from_projections(
    web: httpx.AsyncClient, ledger: Ledger
) -> None:
    lease = await claimed(ledger)
    await ledger.complete(lease, cost_usd_delta=2.5)
    assert "The counts are not kept yet" in (await web.get("/p/test")).text
    for projection in (RUN_COUNTS, SPENDING):
        await install(ledger.pool, projection)
        await CatchUp(ledger.pool, projection).to_the_end()
    assert (await web.get("/p/test.json")).json()["counts"]["completed"] == 1
    assert "$2.5" in (await web.get("/p/test/cost")).text
    assert (await web.get("/p/test/cost.csv")).text.splitlines()[1].endswith(",2.500000,0,1,1,0")


async def test_a_form_that_is_refused_gives_back_its_reason_and_leads_to_its_page(
    web: httpx.AsyncClient, ledger: Ledger
) -> None:
    run = (await ledger.cancel((await ledger.submit("parse")).run_id)).run_id
    sent_from = {"Referer": f"http://localhost/p/test/runs/{run}?beats=true"}
    for form in ({"reason": "<b>the\r\ncustomer"}, {"reason": "<b>the\r\ncustomer", "change": "x"}):
        path = f"/p/test/runs/{run}/cancel" if "change" not in form else "/p/test/kinds"
        refused = await web.post(path, data=form, headers=sent_from)

        assert refused.status_code in {409, 422}
        assert "<pre>&lt;b&gt;the\ncustomer</pre>" in refused.text
        assert f'<a href="/p/test/runs/{run}?beats=true">' in refused.text
    no_form = await web.post("/p/test/kinds", content=b"--a", headers={"Content-Type": MULTIPART})
    assert no_form.status_code in {400, 422}


async def test_an_error_for_the_operator_shows_a_viewer_nothing_of_it() -> None:
    page = failed(_request(), DatabaseRefused("XX000", "a secret of the server"))

    assert page.status_code == 500
    assert b"a secret of the server" not in page.body
    assert b"log says what happened" in page.body


async def test_a_token_that_is_revoked_while_a_page_is_made_leads_to_the_sign_in() -> None:
    refused = AccessDenied("no such token")
    refused.__cause__ = asyncpg.PostgresError.new({"C": "RF401", "M": "no such token"})
    page = failed(_request(), refused)

    assert (page.status_code, page.headers["location"]) == (303, "/sign-in?to=/p/test/runs%3Fq%3Da")


def _request() -> Request:
    return Request(
        {
            "type": "http", "method": "GET", "path": "/p/test/runs", "query_string": b"q=a",
            "headers": [(b"host", b"localhost")], "scheme": "http", "server": ("localhost", 80),
        }
    )  # fmt: skip


def test_the_script_writes_text_and_never_markup() -> None:
    script = "".join(ASSETS[name].decode() for name in ("console.js", "verify.js"))
    markup = r"(inner|outer)HTML|insertAdjacent|document\.write|\beval\b|\bFunction\("
    assert re.search(markup, script) is None
