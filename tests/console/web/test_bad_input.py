"""What a decision and a page refuse, with a word about it, on record and with nothing half done."""

from __future__ import annotations

import httpx

from runfold.console.web import app
from runfold.ledger import Ledger, State
from runfold.ledger.events import NoteAdded
from tests.support.runs import claimed
from tests.support.web import calling, sign_in, token


async def asked_by(secret: str, ledger: Ledger) -> tuple[str, int]:
    """Submit a run with a token, and let a worker ask for an approval; return run and version."""
    async with calling(app(ledger), secret) as client:
        run = (await client.post("/v1/runs", json={"kind": "refund"})).json()
    [lease] = await ledger.claim("w", kinds=["refund"])
    waits = await ledger.ask_approval(
        lease, "Refund?", show={"amount": 250}, other_person=True, park=True
    )
    return str(run["run_id"]), waits.version


async def test_who_asked_does_not_approve_by_the_api_or_a_page_and_the_try_is_on_record(
    ledger: Ledger,
) -> None:
    credential, secret = await token(ledger, ["submit", "decide", "read"], actors=["*"])
    run_id, version = await asked_by(secret, ledger)
    async with calling(app(ledger), secret) as client:
        by_api = await client.post(
            f"/v1/runs/{run_id}/decision",
            json={"decision": "approve", "actor": "somebody else"},
            headers={"If-Match": f'"{version}"'},
        )
    async with calling(app(ledger)) as browser:
        await sign_in(browser, secret)
        by_page = await browser.post(
            f"/p/test/approvals/{run_id}/{version}",
            data={"decision": "approve", "person": "somebody else"},
        )

    assert (by_api.status_code, by_page.status_code) == (403, 403), by_api.text
    assert (await ledger.get(run_id)).state == State.WAITING_APPROVAL
    noted = [e for e in await ledger.history(run_id) if isinstance(e, NoteAdded)]
    assert [event.credential for event in noted] == [credential] * 2
    assert all("refused" in f"{event.name} {event.text}" for event in noted)


async def test_a_page_that_was_read_before_a_change_decides_nothing(
    web: httpx.AsyncClient, ledger: Ledger
) -> None:
    lease = await claimed(ledger)
    waits = await ledger.ask_approval(lease, "Refund?", show={"amount": 250})
    path = f"/p/test/approvals/{lease.run_id}/{waits.version}"
    said = {"decision": "approve", "person": "ann"}
    for digest in ("0" * 64, "nonsense", "\x00"):
        answer = await web.post(path, data={**said, "shown_sha256": digest})
        assert answer.status_code in {409, 422}, answer.text
        assert 'class="problem"' in answer.text
    too_large = f"/p/test/approvals/{lease.run_id}/99999999999"
    assert (await web.post(too_large, data=said)).status_code == 422

    assert (await ledger.get(lease.run_id)).state == State.WAITING_APPROVAL


async def test_no_right_makes_another_one(ledger: Ledger) -> None:
    _, secret = await token(ledger, ["read", "work", "submit", "audit"], actors=["*"])
    lease = await claimed(ledger)
    waits = await ledger.ask_approval(lease, "?", park=True)
    decision = f"/v1/runs/{lease.run_id}/decision"
    async with calling(app(ledger), secret) as client:
        decided = await client.post(
            decision,
            json={"decision": "approve", "actor": "ann"},
            headers={"If-Match": f'"{waits.version}"'},
        )
        paused = await client.post("/v1/kinds/parse/pause", json={"reason": "x"})
        told = await client.post("/v1/webhooks", json={"url": "https://example.com/x"})

    codes = [(each.status_code, each.json()["code"]) for each in (decided, paused, told)]
    assert codes == [(403, "access-denied")] * 3
    assert await ledger.webhooks.every() == []
    assert (await ledger.get(lease.run_id)).state == State.WAITING_APPROVAL


async def test_a_secret_in_an_input_is_nowhere_in_what_is_answered(
    web: httpx.AsyncClient, ledger: Ledger
) -> None:
    secret = "sk-" + "a1B2" * 10
    made = await web.post("/v1/runs", json={"kind": "x", "input": {"api_key": secret}})
    run_id = made.json()["run_id"]
    pages = [f"/v1/runs/{run_id}", f"/v1/runs/{run_id}/history", f"/p/test/runs/{run_id}/raw"]

    for page in pages:
        assert secret not in (await web.get(page)).text, page


ADDRESSES = (
    "/p/test/runs?q=" + "a" * 20_000, "/p/test/runs?q=%00", "/p/test/runs?q=%ff",
    "/p/test/runs?limit=1&limit=x", "/p/test/runs?before=%E2%80%AE", "/p/%2e%2e/runs",
    "/p/test/workers?after=x", "/p/test/workers?after=9999-12-31T23:59:59-14:00",
    "/p/test/whatif?ttl=nan", "/p/test/whatif?since=x",
    "/p/test/whatif?ttl=1e400", "/p/test/audit?from=-1", "/p/test/reads?run=x",
    "/p/test/bulk?action=drop&q=kind:x", "/p/test/webhooks/%00", "/p/test/webhooks/none",
    "/p/test/approvals/x/1", "/p/test/approvals/0197c2a1-0000-7000-8000-000000000000/-1",
    "/p/test/runs/0197c2a1-0000-7000-8000-000000000000/events/x",
    "/p/test/runs/0197c2a1-0000-7000-8000-000000000000/tree", "/p/test/nothing",
    "/assets/%2e%2e/run.py",
    "/p/test/runs/..%2f..%2fetc%2fpasswd", "/sign-in?to=//evil.example%0d%0aX:%201",
    "/sign-in/callback?code=%00&state=%ff", "/p/test/live?run=x",
)  # fmt: skip


async def test_nonsense_in_an_address_is_no_fault_of_the_server(web: httpx.AsyncClient) -> None:
    for path in ADDRESSES:
        answer = await web.get(path)

        assert answer.status_code < 500, (path, answer.text)
        for told in ("Traceback", "\u202e", "SELECT"):
            assert told not in answer.text, path


async def test_what_no_text_can_hold_is_refused_by_name(web: httpx.AsyncClient) -> None:
    body = b'{"action": "cancel", "query": "kind:\\ud800"}'
    answer = await web.post(
        "/v1/bulk/preview", content=body, headers={"Content-Type": "application/json"}
    )

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid-query"), answer.text


async def test_an_address_with_a_slash_too_many_leads_nowhere_without_tls(
    web: httpx.AsyncClient,
) -> None:
    for method, path in (("GET", "/p/test/"), ("GET", "/v1/runs/"), ("POST", "/v1/runs/")):
        answer = await web.request(method, path, json={"kind": "parse"})
        assert (answer.status_code, answer.headers.get("location")) == (404, None), path


NOBODYS = "01890000-0000-7000-8000-000000000000"
FORMS: tuple[tuple[str, dict[str, str]], ...] = (
    ("/p/test/kinds", {"kind": "a\u202e", "change": "pause", "reason": "x"}),
    ("/p/test/kinds", {"kind": "a", "change": "drop", "reason": "x"}),
    ("/p/test/kinds", {"kind": "a", "change": "limit", "max_running": "1e9", "reason": "x"}),
    ("/p/test/kinds", {"kind": "a", "change": "pause", "reason": "x" * 100_000}),
    ("/p/test/kinds", {}),
    ("/p/test/archive", {"target": "2026-99", "change": "hold", "reason": "x"}),
    ("/p/test/archive", {"target": "../x", "change": "hold", "reason": "x"}),
    ("/p/test/webhooks", {"url": "http://169.254.169.254/", "reason": "x"}),
    ("/p/test/webhooks", {"url": "https://example.com/\x00", "reason": "x"}),
    ("/p/test/bulk", {"action": "cancel", "q": "", "reason": "x"}),
    *(
        (f"/p/test/bulk/{key}/abort", {"change": "x"})
        for key in ("%00", "%ff", "%E2%80%AE", "a" * 5_000)
    ),
    ("/p/test/webhooks/%00", {"change": "pause"}),
    ("/p/test/webhooks/wh_1", {"change": "drop"}),
    *(
        ("/p/test/webhooks/wh_000000000000", {"change": "resend", "delivery": delivery})
        for delivery in ("", "\x00", "wh_1", "\u202e", "../../x")
    ),
    *(
        (f"/p/test/approvals/{run}/{version}/snooze", {"wait": "1h"})
        for run, version in (("x", 1), (NOBODYS, 0), (NOBODYS, -1), (NOBODYS, 2**70), ("%00", "x"))
    ),
    ("/view", {"theme": "dark", "zone": "../../etc/passwd", "to": "/"}),
)


async def test_a_bad_form_is_a_page_that_says_so_and_does_nothing(
    web: httpx.AsyncClient, ledger: Ledger
) -> None:
    for path, data in FORMS:
        answer = await web.post(path, data=data)

        assert answer.status_code in {404, 409, 413, 422}, (path, data)
        assert 'class="problem"' in answer.text or answer.status_code == 413, (path, data)
    assert [kind for kind in await ledger.kinds() if kind.paused] == []
    assert await ledger.webhooks.every() == []


async def test_a_form_without_end_or_with_too_many_fields_is_refused(
    web: httpx.AsyncClient,
) -> None:
    large = await web.post("/p/test/kinds", data={"kind": "x" * 2_000_000})
    many = await web.post("/p/test/kinds", data={f"f{number}": "x" for number in range(3_000)})

    assert large.status_code == 413
    assert many.status_code in {400, 413, 422}
