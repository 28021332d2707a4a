"""The other resources: versions, the past, waits, kinds, schedules, projections, probes."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import uuid4

import httpx
import pytest
import structlog

from runfold.console.web import app
from runfold.console.web.api import health
from runfold.console.web.options import is_loopback
from runfold.console.web.problems import MEANINGS, STATUSES, code_of
from runfold.ledger import Ledger, State
from runfold.ledger.errors import DatabaseUnavailable
from runfold.workers.journal.children import sweep
from tests.support.runs import claimed, waiting
from tests.support.web import calling


async def test_a_write_is_refused_when_the_run_has_moved_on(
    web: httpx.AsyncClient, ledger: Ledger
) -> None:
    run = await ledger.submit("parse")
    path = f"/v1/runs/{run.run_id}/notes"
    first = await web.post(path, json={"text": "seen"}, headers={"If-Match": '"1"'})
    late = await web.post(path, json={"text": "seen"}, headers={"If-Match": '"1"'})
    vague = await web.post(path, json={"text": "seen"}, headers={"If-Match": "*"})
    cancel = await web.post(f"/v1/runs/{run.run_id}/cancel", json={}, headers={"If-Match": '"1"'})

    assert first.json()["version"] == 2
    assert (late.status_code, late.json()["code"]) == (412, "version-conflict")
    assert (late.json()["actual"], late.json()["expected"]) == (2, 1)
    assert (vague.status_code, cancel.status_code) == (422, 422)
    assert (await ledger.get(run.run_id)).version == 2


async def test_a_worker_that_lost_its_lease_is_told_so_and_by_whom(
    web: httpx.AsyncClient, ledger: Ledger
) -> None:
    lease = await claimed(ledger, "w:1")
    await ledger.release(lease)
    [new] = await ledger.claim("w:2")
    stale = {"token": lease.token, "worker_id": "w:1"}
    run_id = str(lease.run_id)
    for verb, more in (
        ("complete", {}), ("fail", {"error_code": "E"}), ("retry", {}),
        ("steps", {"name": "s"}), ("ask-tool", {"name": "t"}), ("ask-approval", {"prompt": "?"}),
    ):  # fmt: skip
        answer = await web.post(f"/v1/runs/{run_id}/{verb}", json={**stale, **more})
        assert (answer.status_code, answer.json()["code"]) == (409, "lease-lost"), verb
        assert answer.json()["current_token"] == new.token
    beats = {"leases": [{"run_id": run_id, **stale}]}
    assert (await web.post("/v1/heartbeats", json=beats)).json()["leases"][0]["lost"] is True
    events = await ledger.history(lease.run_id)
    assert {"write.refused"} <= {event.type for event in events}


async def test_a_worker_over_http_waits_for_a_child(web: httpx.AsyncClient, ledger: Ledger) -> None:
    lease = await claimed(ledger, "w:1")
    path = f"/v1/runs/{lease.run_id}"
    asked = {"kind": "piece", "parent": str(lease.run_id)}
    child = (await web.post("/v1/runs", json=asked)).json()["run_id"]
    wait = {"name": "child:piece", "input": {"child": child}, "park": True}
    held = {"token": lease.token, "worker_id": "w:1"}
    assert (await web.post(f"{path}/ask-tool", json={**held, **wait})).status_code == 200
    [piece] = await ledger.claim("w:2", kinds=["piece"])
    await ledger.complete(piece, output={"pixels": 640})

    assert await sweep(ledger) == 1

    answer = (await web.get(f"{path}/history")).json()["events"][-1]
    assert (answer["type"], answer["output"]) == ("tool.completed", {"pixels": 640})


async def test_the_past_is_read_in_pages_and_at_any_version(
    web: httpx.AsyncClient, ledger: Ledger
) -> None:
    lease = await claimed(ledger, "w:1")
    await ledger.complete(lease, {"lines": 3})
    path = f"/v1/runs/{lease.run_id}"
    page = (await web.get(f"{path}/history", params={"limit": 2})).json()
    rest = (await web.get(f"{path}/history", params={"after": page["next"]})).json()
    then = (await web.get(f"{path}/state", params={"at": "2"})).json()
    diff = (await web.get(f"{path}/diff", params={"start": "2"})).json()

    assert [event["version"] for event in page["events"] + rest["events"]] == [1, 2, 3]
    assert rest["next"] is None
    assert then["state"] == "running"
    assert diff["changes"]["state"] == {"before": "running", "after": "completed"}
    assert (await web.get(f"{path}/verify")).json()["ok"] is True
    assert (await web.post("/v1/integrity/verify")).json()["ok"] is True


async def test_pages_of_runs_lead_both_ways(web: httpx.AsyncClient, ledger: Ledger) -> None:
    made = [str((await ledger.submit("parse")).run_id) for _ in range(5)]
    first = await web.get("/v1/runs", params={"limit": 2, "q": "kind:parse"})
    second = await web.get(first.links["next"]["url"])
    back = await web.get(second.links["prev"]["url"])

    def ids(answer: httpx.Response) -> list[str]:
        return [run["run_id"] for run in answer.json()["runs"]]

    assert ids(first) + ids(second) == made[:0:-1]
    assert ids(back) == ids(first)


async def test_a_tool_is_asked_and_answered(web: httpx.AsyncClient, ledger: Ledger) -> None:
    lease = await waiting(ledger, State.WAITING_TOOL, park=True)
    answered = await web.post(f"/v1/runs/{lease.run_id}/answer", json={"output": [1]})
    signalled = await web.post(f"/v1/runs/{lease.run_id}/signals", json={"name": "go"})

    assert answered.status_code == signalled.status_code == 200


async def test_an_ended_run_is_run_again(web: httpx.AsyncClient, ledger: Ledger) -> None:
    run = await ledger.submit("parse", {"a": 1})
    early = await web.post(f"/v1/runs/{run.run_id}/rerun", json={})
    await web.post(f"/v1/runs/{run.run_id}/cancel", json={"reason": "wrong"})
    done = await web.post(f"/v1/runs/{run.run_id}/rerun", json={"reason": "right now"})

    assert (early.status_code, early.json()["code"]) == (409, "not-rerunnable")
    assert (await ledger.get(done.json()["run_id"])).input == {"a": 1}


@pytest.mark.parametrize(
    ("path", "body"), [("runs/{}/rerun", {}), ("bulk", {"action": "rerun", "query": "since:1h"})]
)
async def test_an_empty_actor_is_refused_and_nobody_stands_in_for_it(
    web: httpx.AsyncClient, ledger: Ledger, path: str, body: dict[str, str]
) -> None:
    run = await ledger.submit("parse")
    await ledger.cancel(run.run_id)

    answer = await web.post(
        f"/v1/{path.format(run.run_id)}", json=body | {"actor": "", "reason": "why"}
    )

    assert answer.status_code == 422
    assert "actor ''" in answer.json()["detail"]
    assert len(await ledger.runs()) == 1


async def test_kinds_and_schedules_are_changed(web: httpx.AsyncClient) -> None:
    paused = await web.post(
        "/v1/kinds/parse/pause", json={"reason": "a fault", "actor": "ann", "ahead": True}
    )
    limited = await web.post("/v1/kinds/parse/limit", json={"max_running": 3})
    resumed = await web.post("/v1/kinds/parse/resume", json={})
    history = (await web.get("/v1/kinds/parse/history")).json()["events"]
    nightly = {"kind": "parse", "cron": "0 3 * * *", "timezone": "Europe/Vienna"}
    put = await web.put("/v1/schedules/nightly", json=nightly)
    listed = (await web.get("/v1/schedules")).json()["schedules"]
    held = await web.post("/v1/schedules/nightly/pause", json={"reason": "a fault"})
    now = await web.post("/v1/schedules/nightly/run", json={"reason": "once", "actor": "ann"})
    on = await web.post("/v1/schedules/nightly/resume", json={"reason": "mended"})
    dropped = await web.delete("/v1/schedules/nightly")
    again = await web.delete("/v1/schedules/nightly")

    assert [paused.json()["paused"], resumed.json()["paused"]] == [True, False]
    assert limited.json()["max_running"] == 3
    assert [event["type"] for event in history] == ["kind.paused", "kind.limited", "kind.resumed"]
    assert [put.json()["name"], *[each["name"] for each in listed]] == ["nightly", "nightly"]
    assert [held.json()["is_paused"], on.json()["is_paused"]] == [True, False]
    assert (now.status_code, now.json()["kind"]) == (201, "parse")
    assert (dropped.status_code, again.status_code) == (204, 404)


async def test_projections_and_metrics_are_read(web: httpx.AsyncClient) -> None:
    assert "projections" in (await web.get("/v1/projections")).json()
    assert "runfold_" in (await web.get("/v1/metrics")).text


async def test_probes_answer_without_a_token_and_in_one_word(ledger: Ledger) -> None:
    async with calling(app(ledger)) as client:
        answers = [await client.get(path) for path in ("/v1/health", "/v1/ready")]

    assert [answer.json() for answer in answers] == [{"status": "ok"}] * 2


async def test_a_server_that_ends_is_not_ready(ledger: Ledger) -> None:
    served = app(ledger)
    async with calling(served) as client:
        served.state.ending.set()
        answer = await client.get("/v1/ready")

    assert answer.status_code == 503


async def test_a_server_that_is_not_ready_logs_each_cause_once(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    served, answers = app(ledger), iter(["gone", "gone", "full", None, "gone"])

    async def answered(*_: object) -> list[dict[str, bool]]:
        if reason := next(answers):
            raise DatabaseUnavailable(None, reason)
        return [{"read_only": False}]

    monkeypatch.setattr(health, "fetch", answered)
    async with calling(served) as client:
        with structlog.testing.capture_logs() as lines:
            statuses = []
            for _ in range(5):
                served.state.ready_checked_at = 0.0
                statuses.append((await client.get("/v1/ready")).status_code)

    assert statuses == [503, 503, 503, 200, 503]
    assert [line["event"] for line in lines] == ["not_ready"] * 3
    for line, reason in zip(lines, ("gone", "full", "gone"), strict=True):
        assert reason in line["reason"]


async def test_a_server_whose_database_takes_no_writes_is_not_ready(ledger: Ledger) -> None:
    async with calling(app(ledger)) as client:
        # Of the one connection that is used here.
        await ledger.pool.execute("SET default_transaction_read_only = on")
        with structlog.testing.capture_logs() as lines:
            answer = await client.get("/v1/ready")
        await ledger.pool.execute("SET default_transaction_read_only = off")

    assert answer.status_code == 503
    [line] = lines
    assert "is a standby" in line["reason"]


def test_every_status_has_a_code_that_is_explained() -> None:
    codes = {code_of(name): status.value for name, status in STATUSES.items()}

    assert codes == {code: MEANINGS[code][0] for code in codes}


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.8.8.8"])
def test_an_address_of_this_machine_is_known(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", [".".join("0000"), "::", "10.0.0.1", "example.org", "", "127.0.0.1.x"]
)
def test_an_address_that_others_reach_is_not_taken_for_one(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("runs?state=failed", "parameter 'state': is not one of /v1/runs: after, before, limit, q"),
        ("runs?q=&Limit=3", "parameter 'Limit': is not one of /v1/runs: after, before, limit, q"),
        ("kinds?limit=3", "parameter 'limit': is not one of /v1/kinds: none"),
        ("runs?q=state:failed&q=kind:a", "parameter 'q': is given twice: give it once"),
        ("events?types=a.b&after=x&types=a.c", "checkpoint 'x': is not one: pass what"),
    ],
)
async def test_a_parameter_that_a_route_does_not_have_is_refused(
    web: httpx.AsyncClient, path: str, says: str
) -> None:
    """A misspelt filter would list every run."""
    answer = await web.get(f"/v1/{path}")

    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(says)


async def test_a_member_that_a_body_does_not_have_is_refused(
    web: httpx.AsyncClient, ledger: Ledger
) -> None:
    answer = await web.post("/v1/runs", json={"kind": "parse", "inputs": {"a": 1}})

    assert answer.status_code == 422
    assert "inputs" in answer.json()["detail"]
    assert await ledger.runs() == []


async def test_a_condition_or_key_that_a_route_does_not_look_at_is_refused(
    web: httpx.AsyncClient, ledger: Ledger
) -> None:
    """Passed over, a repeated batch would be submitted twice, a schedule overwritten."""
    schedule = {"kind": "parse", "cron": "0 3 * * *", "ahead": True}
    assert (await web.put("/v1/schedules/nightly", json=schedule)).status_code == 200
    for method, path, body, header in (
        ("POST", "/v1/runs/batch", {"runs": [{"kind": "parse"}]}, "Idempotency-Key"),
        ("POST", "/v1/schedules/nightly/run", {"reason": "now"}, "Idempotency-Key"),
        ("POST", "/v1/runs", {"kind": "parse"}, "If-Match"),
        ("POST", "/v1/runs", {"kind": "parse"}, "If-None-Match"),
        ("PUT", "/v1/schedules/nightly", {**schedule, "cron": "1 1 * * *"}, "If-None-Match"),
        ("DELETE", "/v1/schedules/nightly", None, "If-Unmodified-Since"),
    ):
        answer = await web.request(method, path, json=body, headers={header: "x"})

        assert (answer.status_code, answer.json()["code"]) == (422, "invalid-value"), path
        assert f"header '{header}': is not looked at by {method} {path}" in answer.text
    assert await ledger.runs() == []
    assert [each.cron for each in await ledger.schedules()] == ["0 3 * * *"]
    assert (await web.get("/v1/runs", headers={"If-None-Match": '"1"'})).status_code == 200


async def test_a_step_has_a_finite_cost_and_the_members_of_its_type(
    web: httpx.AsyncClient, ledger: Ledger
) -> None:
    """An error of a step without its type would be left out, and the step be completed."""
    lease = await claimed(ledger)
    path = f"/v1/runs/{lease.run_id}/steps"
    for said, problem in (
        ('"error_code": "E"', "type 'step.completed': has no error_code"),
        ('"error_detail": 1', "type 'step.completed': has no error_detail"),
        ('"type": "step.failed", "output": 1', "type 'step.failed': has no output"),
        ('"cost_usd_delta": NaN', "body.cost_usd_delta: Input should be a finite number"),
        ('"cost_usd_delta": 1e400', "body.cost_usd_delta: Input should be a finite number"),
        ('"cost_usd_delta": 1e12', "cost_usd 1000000000000.0: must be"),
    ):
        body = f'{{"token": {lease.token}, "worker_id": "w:1", "name": "s", {said}}}'
        answer = await web.post(path, content=body, headers={"Content-Type": "application/json"})

        assert (answer.status_code, answer.json()["code"]) == (422, "invalid-value"), said
        assert answer.json()["detail"].startswith(problem)
    assert (await ledger.get(lease.run_id)).version == lease.token


async def test_a_time_in_a_body_is_what_it_is_on_the_command_line(
    web: httpx.AsyncClient, subtests: pytest.Subtests
) -> None:
    """The library of the bodies takes a number, also in a text, for seconds since 1970."""
    for said in ("90", "1.5m", 90):
        with subtests.test(repr(said)):
            run = (await web.post("/v1/runs", json={"kind": "parse", "deadline": said})).json()
            begun, end = (datetime.fromisoformat(run[name]) for name in ("created_at", "deadline"))
            assert end - begun == timedelta(seconds=90)
    for member, path, body, values in (
        ("deadline", "/v1/runs", {"kind": "parse"}, ("1e3", "2100-01-01", True)),
        ("until", f"/v1/runs/{uuid4()}/snooze", {}, (4_102_444_800, "4102444800", "2100-01-01")),
        ("moment", "/v1/bulk", {"action": "cancel", "query": "kind:a"}, (1_700_000_000, "60")),
    ):
        for value in values:
            with subtests.test(f"{member} {value!r}"):
                headers = {"If-Match": '"1"'} if member == "until" else {}
                refused = await web.post(path, json={**body, member: value}, headers=headers)
                assert refused.status_code == 422
                assert "must be a" in refused.json()["detail"], refused.text


async def test_a_member_of_a_body_has_the_type_that_is_described(
    web: httpx.AsyncClient, ledger: Ledger
) -> None:
    lease = await claimed(ledger)
    held = {"token": lease.token, "worker_id": lease.worker_id}
    for path, body in (
        ("/v1/runs", {"kind": "parse", "max_attempts": True}),
        ("/v1/runs", {"kind": "parse", "priority": "1"}),
        ("/v1/runs", {"kind": "parse", "delay": True}),
        ("/v1/claims", {"worker_id": "w:1", "limit": True}),
        (f"/v1/runs/{lease.run_id}/complete", {**held, "token": True}),
        (f"/v1/runs/{lease.run_id}/complete", {**held, "cost_usd_delta": True}),
        (f"/v1/runs/{lease.run_id}/ask-approval", {**held, "prompt": "?", "park": "no"}),
    ):
        refused = await web.post(path, json=body)
        assert refused.status_code == 422, refused.text
        assert "valid" in refused.json()["detail"] or "should be" in refused.json()["detail"]
    assert len(await ledger.runs()) == 1
    exact = {**held, "cost_usd_delta": "0.1"}
    done = await web.post(f"/v1/runs/{lease.run_id}/complete", json=exact)
    assert done.json()["cost_usd"] == "0.100000"


async def test_a_probe_may_ask_by_head_and_all_methods_of_a_path_are_named(
    web: httpx.AsyncClient,
) -> None:
    probes = [await web.head(path) for path in ("/v1/health", "/v1/ready")]
    refused = [await web.patch(path) for path in ("/v1/health", "/v1/runs", "/v1/schedules/x")]

    assert [probe.status_code for probe in probes] == [200, 200]
    assert [answer.status_code for answer in refused] == [405] * 3
    allowed = ["GET, HEAD", "GET, POST", "DELETE, PUT"]
    assert [answer.headers["allow"] for answer in refused] == allowed
