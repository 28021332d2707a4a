"""Batches of runs, heads and proofs, and webhooks, over HTTP."""

from __future__ import annotations

import json
import random

import httpx
import pytest

from runfold.console.web.api import integrity
from runfold.ledger import Ledger
from runfold.ledger.proof.bundle import check_evidence
from runfold.workers.duties.webhooks.deliverer import Terms
from runfold.workers.duties.webhooks.posting import Poster
from runfold.workers.duties.webhooks.sender import WebhookSender
from tests.support.runs import claimed, event_count

SECRET = "sk-" + "a1B2" * 10


async def test_a_batch_is_taken_whole_or_not_at_all_and_once(
    web: httpx.AsyncClient, ledger: Ledger
) -> None:
    batch = {
        "actor": "ann",
        "runs": [{"kind": "a", "input": 1, "key": "k1"}, {"kind": "b", "tags": ["t"], "key": "k2"}],
    }
    first = await web.post("/v1/runs/batch", json=batch)
    again = await web.post("/v1/runs/batch", json=batch)
    other = {"runs": [{"kind": "c"}, {"kind": "a", "input": 2, "key": "k1"}]}
    changed = await web.post("/v1/runs/batch", json=other)
    wrong = [
        await web.post("/v1/runs/batch", json={"runs": runs})
        for runs in (
            [], [{"kind": "a"}] * 1_001, [{"kind": "a"}, {"kind": ""}],
            [{"kind": "a", "priority": -1}],
        )
    ]  # fmt: skip
    assert "command 2: kind" in wrong[2].json()["detail"]

    assert first.status_code == 201
    assert [run["created"] for run in first.json()["runs"]] == [True, True]
    assert [run["created"] for run in again.json()["runs"]] == [False, False]
    assert (changed.status_code, changed.json()["code"]) == (422, "duplicate-key")
    assert [answer.status_code for answer in wrong] == [422] * 4
    runs = await ledger.runs()
    assert sorted(run.kind for run in runs) == ["a", "b"]
    assert {(await ledger.history(run.run_id))[0].actor for run in runs} == {"ann"}


async def test_lines_of_json_are_a_batch_and_a_wrong_one_is_named(
    web: httpx.AsyncClient, ledger: Ledger
) -> None:
    lines, kind = b'{"kind": "a", "key": "k"}\n\n{"kind": "b", "input": [1]}\n', "x-ndjson"
    answers = []
    for body, sent_as in (
        (b'{"kind": "c"}\n{"kind": 1}', kind), (b'{"kind": "c"}\n{"kind"', kind), (b"", kind),
        (b'{"kind": "c"}\n' * 1_001, kind), (b"[" * 500, kind), (b"\xff", kind),
        (b'{"kind": "c"}\n\n{"input": "%b"}' % SECRET.encode(), kind), (lines, "json"),
        (lines, kind), (lines, kind),
    ):  # fmt: skip
        headers = {"Content-Type": f"application/{sent_as}"}
        answers.append(await web.post("/v1/runs/lines", content=body, headers=headers))

    assert [each.status_code for each in answers] == [422] * 7 + [415, 201, 201]
    assert "line 2" in answers[0].json()["detail"]
    assert "line 2 '{\"kind\"': Invalid JSON" in answers[1].json()["detail"]
    assert "line 3" in answers[6].json()["detail"]
    assert SECRET not in "".join(answer.text for answer in answers)
    assert [run["created"] for run in answers[-1].json()["runs"]] == [False, True]
    assert sorted(run.kind for run in await ledger.runs()) == ["a", "b", "b"]


async def test_a_head_commits_to_a_run_and_its_proof_is_checked_without_the_server(
    web: httpx.AsyncClient, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = await claimed(ledger, input={"a": 1})
    await ledger.complete(lease, output=1)
    await ledger.pause_kind("parse", actor="ann")

    head = (await web.get(f"/v1/runs/{lease.run_id}/head")).json()
    proof = await web.get(f"/v1/runs/{lease.run_id}/proof")
    control = (await web.get("/v1/integrity/head")).json()

    checked = check_evidence(proof.content)
    assert not checked.findings
    assert (checked.head, checked.events) == (head["head"], head["version"]) == (head["head"], 3)
    assert "when it was recorded" in head["does_not_prove"]
    assert control["control"]["type"] == "kind.paused"
    assert check_evidence(json.dumps({**proof.json(), "head": "00"})).findings
    missing = await web.get("/v1/runs/01a22335-cb51-73b0-ae5c-5a08e0a49e96/proof")
    assert missing.status_code == 404
    monkeypatch.setattr(integrity, "MAX_PROOF", 1)
    long = await web.get(f"/v1/runs/{lease.run_id}/proof")
    assert (long.status_code, "more than 1 events" in long.text) == (422, True)


async def test_webhooks_are_made_looked_at_and_taken_away(
    web: httpx.AsyncClient, ledger: Ledger
) -> None:
    body = {"url": "https://example.com/hook", "events": ["run.failed"], "actor": "ann"}
    made = await web.post("/v1/webhooks", json=body)
    path = f"/v1/webhooks/{made.json()['webhook_id']}"
    paused = await web.post(f"{path}/pause", json={"reason": "theirs"})
    resumed = await web.post(f"{path}/resume", json={"from_now": True})
    [listed] = (await web.get("/v1/webhooks")).json()["webhooks"]

    assert made.json()["secret"].startswith("whsec_")
    assert (paused.json()["is_paused"], resumed.json()["is_paused"]) == (True, False)
    assert (listed["url"], listed["events"]) == (body["url"], ["run.failed"])
    assert "secret" not in listed
    assert (await web.get(f"{path}/deliveries")).json() == {"deliveries": []}
    gone = (
        f"/v1/webhooks/deliveries/{made.json()['webhook_id']}"
        f"_{'0' * 8}-0000-7000-8000-{'0' * 12}_1_{'0' * 8}"
    )
    assert (await web.post(f"{gone}/resend", json={})).status_code == 404
    assert (await web.post("/v1/webhooks/deliveries/x/resend", json={})).status_code == 422
    assert (await web.delete(path)).status_code == 204
    assert (await web.delete(path)).json()["code"] == "webhook-not-found"
    assert (await web.post(f"{path}/pause", json={})).status_code == 404
    for url in ("http://169.254.169.254/latest/meta-data", "file:///etc/passwd"):
        assert (await web.post("/v1/webhooks", json={"url": url})).status_code == 422


async def test_the_pages_make_a_webhook_show_what_it_was_told_and_send_again(
    web: httpx.AsyncClient, ledger: Ledger
) -> None:
    base = "/p/test/webhooks"
    made = await web.post(base, data={"url": "https://x.example/h", "events": "run.submitted, a.b"})
    [webhook] = await ledger.webhooks.every()
    run = await ledger.submit("parse")
    await WebhookSender(ledger, Terms(Poster(seconds=0.01))).once()
    page = await web.get(f"{base}/{webhook.webhook_id}")
    [delivery] = await ledger.webhooks.deliveries(webhook.webhook_id)
    order = {"change": "resend", "delivery": delivery.delivery_id}
    again = await web.post(f"{base}/{webhook.webhook_id}", data=order)
    paused = await web.post(f"{base}/{webhook.webhook_id}", data={"change": "pause", "reason": "r"})

    assert "whsec_" in made.text
    assert "whsec_" not in (await web.get(base)).text
    assert webhook.events == ("a.b", "run.submitted")
    assert "failing" in page.text
    assert str(run.run_id) in page.text
    assert (again.status_code, paused.status_code) == (303, 303)
    types = [order.type for order in await ledger.control_history()]
    assert types[-2:] == ["delivery.resent", "webhook.changed"]
    assert (await web.get(f"{base}/wh_none")).status_code == 404
    gone = delivery.delivery_id.replace(str(run.run_id), "01890000-0000-7000-8000-000000000000")
    order["delivery"] = gone
    assert (await web.post(f"{base}/{webhook.webhook_id}", data=order)).status_code == 404
    assert (await web.post(base, data={"url": "http://10.0.0.1"})).status_code == 422


def broken_lines(seed: int) -> bytes:
    """Lines of JSON that somebody has cut, doubled and written over, the same for each seed."""
    chance = random.Random(seed)  # noqa: S311  repeatable, no secret
    sound = [
        b'{"kind": "a", "key": "k%d"}' % seed, b'{"kind": "b", "input": {"a": [1, null, 1e5]}}',
        b'{"kind": "c", "priority": -3, "tags": ["x"]}', b"", b"null", b"[]", b'"a"', b"1e999",
        b'{"kind": "\\ud800"}', b'{"kind": "a\\u0000"}', b'{"kind": 1e400, "kind": "x"}',
        b'{"kind": "d", "delay": 1e308}', b'{"kind": "e", "max_attempts": 99999999999999999999}',
    ]  # fmt: skip
    text = bytearray(
        b"\n".join(chance.choices(sound, [9, 9, 9, 9] + [1] * 9, k=chance.randint(1, 4)))
    )
    for _ in range(chance.choice((0, 0, 1, 3))):
        place = chance.randrange(len(text) + 1)
        part = bytes(chance.choices(b'{}[]",:\\\n\r\x00\xff\xc3 0eE-', k=chance.randint(0, 3)))
        text[place : place + chance.randint(0, 3)] = part
    return bytes(text)


async def test_no_lines_of_json_are_a_fault_of_the_server_or_are_taken_by_half(
    web: httpx.AsyncClient, ledger: Ledger
) -> None:
    headers = {"Content-Type": "application/x-ndjson"}
    before, taken = 0, 0
    for seed in range(100):
        body = broken_lines(seed)
        answer = await web.post("/v1/runs/lines", content=body, headers=headers)
        assert answer.status_code in {201, 422}, (seed, body, answer.text)
        if answer.status_code == 201:
            taken += 1
            before += sum(run["created"] for run in answer.json()["runs"])
        else:
            assert answer.headers["content-type"] == "application/problem+json"
    assert await event_count(ledger) == before
    assert 10 < taken < 90
