"""The pages in a real browser: whole, live, by keyboard, on a telephone, and for everybody."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from axe_playwright_python.sync_playwright import Axe
from fastapi.routing import APIRoute
from playwright.sync_api import Browser, Page, Route, expect

from runfold.console.web.evidence import export
from runfold.console.web.pages import routers
from runfold.ledger import State
from tests.console.browser.conftest import NARROW, WIDE, watched
from tests.console.browser.serving import Served
from tests.support.web import token

pytestmark = pytest.mark.slow
IMAGES = Path(__file__).parents[3] / "docs" / "images"
FORMS = (".json", ".csv", "/live")
"""Endings of addresses that are no pages."""
PICTURES = {
    "overview": "overview",
    "runs": "runs",
    "runs-run": "run-timeline",
    "approvals-run": "approval",
    "runs-run-state": "state",
}
"""Pictures of the documents, by the page; `make screenshots` keeps them."""
QUICK = {"resultTypes": ["violations"], "preload": False, "iframes": False}
"""What axe need not do: describe what is in order, and look for what the pages do not have."""
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"], **QUICK}
CONTRAST = {"runOnly": ["color-contrast"], **QUICK}


def paths(served: Served) -> list[str]:
    """Every page of the project: of each route whose parameters are known here, and some states."""
    run = served.filled.asking
    known = {"project": "test", "run_id": run, "version": str(asked_version(served))}
    known["webhook_id"] = served.filled.webhook
    routes = [route for router in routers() for route in router.routes]
    filled = [
        re.sub(r"{(\w+)}", lambda name: known.get(name[1], "{?}"), route.path)
        for route in routes
        if isinstance(route, APIRoute) and "GET" in (route.methods or ())
    ]
    states = [
        "/runs?q=state:failed", "/runs?q=nonsense:1", "/approvals?show=decided",
        "/approvals?show=snoozed",
        f"/integrity?run={run}", f"/runs/{run}/events/5",
        f"/runs/{run}?attempt=1", f"/runs/{run}/state?at=5&vs=4",
    ]  # fmt: skip
    found = [
        path
        for path in filled
        if path.startswith("/p/test") and "{?}" not in path and not path.endswith(FORMS)
    ]
    return [*dict.fromkeys(found), *(f"/p/test{each}" for each in states)]


def asked_version(served: Served) -> int:
    """The version of the request that waits for two signatures."""
    history = served.do(served.ledger.history(served.filled.asking))
    return next(event.version for event in history if event.type == "approval.requested")


def name_of(path: str) -> str:
    """A name for the file of a page's screenshot."""
    plain = re.sub(r"[0-9a-f-]{36}", "run", path.removeprefix("/p/test"))
    plain = re.sub(r"/[0-9]+$|\?at=.*", "", plain)
    return re.sub(r"\W+", "-", plain).strip("-") or "overview"


def test_every_page_fits_loads_cleanly_and_is_accessible_in_both_themes(
    browser: Browser, served: Served
) -> None:
    context = browser.new_context(base_url=served.open, viewport=WIDE, reduced_motion="reduce")
    page = context.new_page()
    faults = watched(page)
    problems: list[str] = []
    for path in paths(served):
        page.goto(path)
        expect(page.get_by_role("button", name="Go anywhere")).to_be_visible()
        keep_picture(page, path)
        problems += shown(path, Axe().run(page, options=RULES).response["violations"])
        page.evaluate("document.documentElement.dataset.theme = 'dark'")
        in_the_dark = page.evaluate("rules => axe.run(rules)", CONTRAST)["violations"]
        problems += shown(f"{path} in the dark", in_the_dark)
        keep_picture(page, path, "dark")
        page.set_viewport_size(NARROW)
        width = page.evaluate("document.documentElement.scrollWidth")
        problems += [f"{path} is {width} px wide at 360"] if width > NARROW["width"] else []
        keep_picture(page, path, "narrow")
        page.set_viewport_size(WIDE)
    context.close()
    problems += [fault for fault in faults if "422" not in fault]  # the query that is nonsense
    assert not problems, "\n".join(problems)


def shown(path: str, violations: list[Any]) -> list[str]:
    """Return what axe found on a page, each with the elements."""
    return [
        f"{path}: {each['id']}: {[node['html'][:200] for node in each['nodes']]}"
        for each in violations
    ]


def keep_picture(page: Page, path: str, form: str = "") -> None:
    """Take a picture where `make screenshots` asks for it; pictures take half of the time."""
    if folder := os.environ.get("SCREENSHOTS"):
        name = name_of(path)
        page.screenshot(path=Path(folder) / f"{form}-{name}.png".lstrip("-"), full_page=bool(form))
        if name in PICTURES and not form:
            shutil.copy(Path(folder) / f"{name}.png", IMAGES / f"{PICTURES[name]}.png")


@contextmanager
def signed_in(browser: Browser, served: Served, name: str) -> Iterator[Page]:
    """Yield a page of a person who signed in with a token of their own."""
    _, secret = served.do(token(served.ledger, ["read", "decide"], actors=[name]))
    context = browser.new_context(base_url=served.closed, viewport=WIDE)
    page = context.new_page()
    faults = watched(page)
    page.goto("/p/test/approvals")
    page.get_by_label("API token").fill(secret)
    page.get_by_role("button", name="Sign in with the token").click()
    expect(page.get_by_role("heading", name="Approvals")).to_be_visible()
    yield page
    context.close()
    assert faults == []


def decide(page: Page, name: str, decision: str) -> None:
    """Decide the request that the page shows."""
    page.get_by_label("Your name, on record").fill(name)
    page.get_by_label("Reason").fill("the customer called")
    page.get_by_role("button", name=decision).click()


def test_not_now_hides_a_request_and_putting_it_back_shows_it(page: Page, served: Served) -> None:
    page.goto("/p/test/approvals")
    count = page.locator("header nav .count")
    before = int(count.inner_text())
    page.locator("tbody a").first.click()
    page.get_by_label("Out of my inbox").select_option("4h")
    page.get_by_role("button", name="Snooze").click()
    expect(page.get_by_role("link", name="Snoozed 1")).to_be_visible()
    assert int(count.inner_text() or 0) == before - 1
    page.get_by_role("link", name="Snoozed 1").click()
    expect(page.get_by_text(re.compile(r"in 3h5\dm"))).to_be_visible()
    page.get_by_role("button", name="Put back").click()
    expect(page.get_by_text("You have snoozed nothing.")).to_be_visible()
    assert int(count.inner_text()) == before


def test_two_people_approve_what_both_see_and_the_run_goes_on(
    browser: Browser, served: Served
) -> None:
    run = served.filled.asking
    with signed_in(browser, served, "ann") as ann, signed_in(browser, served, "bo") as bo:
        bo.goto("/p/test/approvals")
        row = bo.get_by_role("row").filter(has_text="Refund $250")
        expect(row).to_contain_text("0/2")

        ann.get_by_role("link", name="Refund $250 on A-17?").click()
        expect(ann.get_by_text('"amount": 250')).to_be_visible()
        decide(ann, "ann", "Approve")

        expect(row).to_contain_text("1/2")  # without a reload
        bo.get_by_role("link", name="Refund $250 on A-17?").click()
        expect(bo.get_by_text("1 of 2, by ann")).to_be_visible()
        decide(bo, "bo", "Approve")
        bo.goto(f"/p/test/runs/{run}")
        expect(bo.get_by_text("approval.granted", exact=True)).to_be_visible()
        expect(bo.get_by_text("Waits for a decision")).to_have_count(0)

        [lease] = served.do(served.ledger.claim("worker-8", kinds=["refund"]))
        served.do(served.ledger.complete(lease, output={"refunded": 250}))
        expect(bo.get_by_role("heading", level=1)).to_contain_text("completed")
    granted = [e for e in served.do(served.ledger.history(run)) if "approval." in e.type]
    assert [(e.type, e.actor) for e in granted][1:] == [
        ("approval.signed", "ann"),
        ("approval.granted", "bo"),
    ]


def test_states_change_in_their_rows_and_new_runs_wait_to_be_asked_for(
    page: Page, served: Served
) -> None:
    ledger = served.ledger
    run = served.do(ledger.submit("live", {"n": 1}))
    page.goto("/p/test/runs?q=kind:live")
    row = page.locator(f"#r{run.run_id}")
    expect(row).to_contain_text("pending")
    expect(page.get_by_role("button", name="live")).to_have_attribute("data-state", "live")

    [lease] = served.do(ledger.claim("worker-9", kinds=["live"]))
    expect(row).to_contain_text("running")
    expect(row).to_contain_text("worker-9")

    for _ in range(2):
        served.do(ledger.submit("live"))
    announced = page.get_by_role("button", name="2 new runs: show")
    expect(announced).to_be_visible()
    assert page.locator("tbody tr").count() == 1  # nothing jumped
    announced.click()
    expect(page.locator("tbody tr")).to_have_count(3)
    expect(announced).to_have_count(0)

    served.do(ledger.complete(lease, output={"done": "<img src=x onerror=alert(1)>"}))
    expect(row).to_contain_text("completed")


def test_a_run_is_followed_and_a_half_written_reason_is_left_alone(
    page: Page, served: Served
) -> None:
    ledger = served.ledger
    run = served.do(ledger.submit("followed"))
    page.goto(f"/p/test/runs/{run.run_id}")
    reason = page.get_by_label("Reason")
    reason.fill("it takes")

    [lease] = served.do(ledger.claim("worker-9", kinds=["followed"]))
    expect(page.locator("#e2")).to_contain_text("lease.acquired")
    expect(page.get_by_role("heading", level=1)).to_contain_text("running")
    expect(page.get_by_role("link", name="Attempt 1")).to_be_visible()
    expect(reason).to_have_value("it takes")

    served.do(ledger.complete(lease, output={"text": "<b>bold</b>"}))
    expect(page.get_by_role("heading", level=1)).to_contain_text("completed")
    expect(page.get_by_text('"<b>bold</b>"').first).to_be_visible()


def test_live_updates_pause_and_go_on(page: Page, served: Served) -> None:
    run = served.do(served.ledger.submit("paused"))
    page.goto("/p/test/runs?q=kind:paused")
    lamp = page.locator(".lamp")
    expect(lamp).to_have_attribute("data-state", "live")
    lamp.click()
    expect(lamp).to_have_attribute("data-state", "paused")
    served.do(served.ledger.cancel(run.run_id))
    page.reload()  # still paused, but as the server has it now
    expect(page.locator("tbody")).to_contain_text("cancelled")
    expect(lamp).to_have_attribute("data-state", "paused")
    lamp.click()
    expect(lamp).to_have_attribute("data-state", "live")


def test_a_page_is_live_again_after_its_stream_was_refused(
    browser: Browser, served: Served
) -> None:
    """As by a proxy whose server restarts: a browser does not ask for such a stream again."""
    page = browser.new_page(base_url=served.open)  # not `page`, in which every error is a fault
    refused: list[str] = []

    def refuse_once(route: Route) -> None:
        if refused:
            route.continue_()
        else:
            refused.append(route.request.url)
            route.fulfill(status=502, body="no server")

    page.clock.install()
    page.route("**/live*", refuse_once)
    page.goto("/p/test/runs")
    lamp = page.locator(".lamp")
    expect(lamp).to_have_text("○ not live")
    page.clock.fast_forward(15_000)
    expect(lamp).to_have_text("● live")
    page.close()


def test_the_slider_travels_through_the_versions_without_a_button(
    page: Page, served: Served
) -> None:
    page.goto(f"/p/test/runs/{served.filled.asking}/state?at=9&vs=8")
    slider = page.get_by_label("At version")
    expect(page.get_by_role("heading", level=1)).to_contain_text("after event #9")
    slider.press("ArrowLeft")
    slider.press("ArrowLeft")
    expect(page.get_by_role("heading", level=1)).to_contain_text("after event #7")
    expect(page).to_have_url(re.compile(r"at=7&vs=6$"))
    changed = page.locator("tr.changed", has_text="heartbeat_at")
    expect(changed).to_be_visible()


def test_the_sliders_of_what_if_judge_without_a_button(page: Page, served: Served) -> None:
    page.goto("/p/test/whatif")
    page.get_by_label("Lease time").press("ArrowRight")
    expect(page).to_have_url(re.compile(r"ttl=1&"))
    expect(page.locator("[data-live=judged]")).to_contain_text("reaped")


def test_a_browser_recomputes_the_hashes_and_finds_what_a_server_alters(
    page: Page, served: Served
) -> None:
    run = served.filled.asking
    page.goto(f"/p/test/integrity?run={run}")
    page.get_by_role("button", name="Verify in this browser").click()
    head = served.do(served.ledger.history(run))[-1]
    expect(page.locator("[data-verify]")).to_contain_text(f"✔ {head.version} events")
    expect(page.locator("[data-verify]")).to_contain_text(head.hash.hex())

    def altered(route: Route) -> None:
        route.fulfill(body=route.fetch().text().replace("lease.acquired", "lease.released"))

    def with_a_longer_salt(route: Route) -> None:
        answer = route.fetch().json()
        event = answer["events"][0]  # the bytes that are hashed stay the same
        event["salt"] += event["body"][0].encode().hex()
        event["body"] = event["body"][1:]
        route.fulfill(json=answer)

    for change, fault in ((altered, "the hash of #2"), (with_a_longer_salt, "the content of #1")):
        page.route("**/chain.json*", change)
        page.get_by_role("button", name="Verify in this browser").click()
        expect(page.locator("[data-verify]")).to_contain_text(f"✖ {fault} is not")
        page.unroute("**/chain.json*")
    page.goto(f"/p/test/runs/{run}/events/3")
    page.get_by_role("button", name="Verify in this browser").click()
    expect(page.locator("[data-verify]")).to_contain_text("✔ 1 event")


def test_the_navigation_counts_what_waits_and_lists_of_operators_are_live(
    page: Page, served: Served
) -> None:
    page.goto("/p/test/kinds")
    waiting = page.locator("header .count")
    served.do(served.ledger.submit("counted"))
    before = waiting.text_content()
    [lease] = served.do(served.ledger.claim("worker-4", kinds=["counted"]))
    served.do(served.ledger.ask_approval(lease, "Go on?"))
    expect(waiting).not_to_have_text(before or "")
    expect(page.get_by_role("button", name="1 new kind: show")).to_be_visible()
    served.do(served.ledger.limit_kind("report", 3, reason="too many"))
    served.do(served.ledger.cancel(lease.run_id))
    expect(page.locator("#kreport")).to_contain_text("3")


def test_the_page_of_evidence_is_whole_without_a_server(
    browser: Browser, served: Served, tmp_path: Path
) -> None:
    run = served.filled.asking
    served.do(export(served.ledger, [UUID(run)], tmp_path / "evidence"))
    context = browser.new_context(viewport=NARROW, offline=True)
    page = context.new_page()
    faults = watched(page)
    page.goto((tmp_path / "evidence" / "runs" / f"{run}.html").as_uri())
    expect(page.get_by_text("approval.requested", exact=True)).to_be_visible()
    keep_picture(page, "/p/test/evidence", "narrow")
    width = page.evaluate("document.documentElement.scrollWidth")
    context.close()
    assert faults == []
    assert width <= NARROW["width"]


def test_everything_is_reached_by_keyboard(page: Page, served: Served) -> None:
    page.goto("/p/test")
    page.keyboard.press("g")
    page.keyboard.press("r")
    page.wait_for_url(re.compile(r"/p/test/runs$"))  # and its script has begun

    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    first = page.locator("tbody tr").first.locator("a").first
    expect(first).to_be_focused()

    page.keyboard.press("/")
    expect(page.get_by_label("Query")).to_be_focused()
    page.keyboard.type("jk?")  # keys in a field are text
    expect(page.get_by_label("Query")).to_have_value("jk?")

    page.keyboard.press("Control+k")
    page.keyboard.type("failed")
    expect(page.get_by_role("option", name="Runs: failed")).to_have_attribute(
        "aria-selected", "true"
    )
    found = Axe().run(page, options=RULES).response["violations"]
    assert [each["id"] for each in found] == []
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"q=state%3Afailed$"))

    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("next and previous row")
    page.get_by_label("keys without Ctrl").uncheck()
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_enter_in_a_field_gives_no_order_of_several(page: Page, served: Served) -> None:
    """A name is written into the form that approves, and a limit into the one that pauses."""
    served.do(served.ledger.submit("entered"))
    [lease] = served.do(served.ledger.claim("w:1", kinds=["entered"]))
    run = served.do(served.ledger.ask_approval(lease, "Go?"))
    decision = f"/p/test/approvals/{run.run_id}/{run.version}"
    for path, label in ((decision, "Your name, on record"), ("/p/test/kinds", "Limit")):
        page.goto(path)
        page.evaluate("addEventListener('submit', (e) => { self.sent = 1; e.preventDefault(); })")
        field = page.get_by_label(label).first
        for reason in page.locator("form", has=field).first.locator("[name=reason]").all():
            reason.fill("r")
        field.press("Enter")
        assert page.evaluate("self.sent") is None, label
    assert served.do(served.ledger.get(run.run_id)).state is State.WAITING_APPROVAL
    served.do(served.ledger.cancel(run.run_id, actor="ann", reason="not needed"))


def test_times_are_shown_in_utc_or_as_the_viewer_has_them(page: Page, served: Served) -> None:
    page.goto(f"/p/test/runs/{served.filled.asking}")
    expect(page.locator("#e1 .time")).to_contain_text("Z")
    page.get_by_role("button", name="UTC").click()
    expect(page.locator("#e1 .time")).to_contain_text(re.compile("CES?T"))
    page.get_by_role("button", name="auto").click()
    page.get_by_role("button", name="light").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.wait_for_load_state("networkidle")
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")


def test_pages_work_without_script(browser: Browser, served: Served) -> None:
    run = served.do(served.ledger.submit("plain"))
    context = browser.new_context(base_url=served.open, java_script_enabled=False)
    page = context.new_page()
    page.goto("/p/test/runs?q=kind:plain")
    page.get_by_role("link", name=str(run.run_id)).click()
    page.get_by_label("Reason").fill("not needed")
    page.get_by_role("button", name="Cancel the run").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("cancelled")
    context.close()
    assert served.do(served.ledger.get(run.run_id)).state == State.CANCELLED
