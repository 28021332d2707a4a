"""The resource of runs: what a client submits and reads."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx

from runfold.console.web import app
from runfold.console.web.options import Options
from runfold.ledger import Ledger
from tests.support.web import calling, token


async def test_a_submitted_run_is_listed_and_read(web: httpx.AsyncClient) -> None:
    made = await web.post("/v1/runs", json={"kind": "parse", "input": {"path": "a.py"}})

    assert made.status_code == 201
    assert made.headers["etag"] == '"1"'
    read = await web.get(made.headers["location"])
    assert read.json()["input"] == {"path": "a.py"}
    listed = (await web.get("/v1/runs")).json()["runs"]
    assert [run["run_id"] for run in listed] == [made.json()["run_id"]]


async def test_a_key_makes_one_run_of_two_requests(web: httpx.AsyncClient) -> None:
    key = {"Idempotency-Key": "A-17"}
    first = await web.post("/v1/runs", json={"kind": "parse"}, headers=key)
    again = await web.post("/v1/runs", json={"kind": "parse"}, headers=key)
    other = await web.post("/v1/runs", json={"kind": "other"}, headers=key)

    assert first.json()["run_id"] == again.json()["run_id"]
    assert (other.status_code, other.json()["code"]) == (422, "duplicate-key")


async def test_an_error_is_a_problem_with_a_code(web: httpx.AsyncClient) -> None:
    answer = await web.get("/v1/runs/0197c2a1-0000-7000-8000-000000000000")

    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "run-not-found"


async def test_a_server_that_is_not_open_asks_for_a_token(ledger: Ledger) -> None:
    async with calling(app(ledger)) as client:
        answer = await client.get("/v1/runs")
        wrong = await client.get("/v1/runs", headers={"Authorization": "Bearer runfold_no"})

    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert wrong.status_code == 401


async def test_a_token_writes_under_its_own_credential(ledger: Ledger) -> None:
    credential, secret = await token(ledger, ["submit"])
    async with calling(app(ledger), secret) as client:
        made = (await client.post("/v1/runs", json={"kind": "parse"})).json()
        read = await client.get(f"/v1/runs/{made['run_id']}")

    [event] = await ledger.history(made["run_id"])
    assert (event.credential, event.actor) == (credential, credential)
    assert (read.status_code, read.json()["code"]) == (403, "access-denied")


async def test_a_run_is_read_once_it_has_ended_or_when_the_time_is_over(ledger: Ledger) -> None:
    run = await ledger.submit("parse")
    path, unknown = f"/v1/runs/{run.run_id}", "/v1/runs/0197c2a1-0000-7000-8000-000000000000"
    served = app(ledger, Options(open=True))
    async with calling(served) as client:
        assert (await client.get(f"{path}?wait=0.05")).json()["state"] == "pending"
        assert (await client.get(f"{unknown}?wait=60")).status_code == 404
        assert (await client.get(f"{path}?wait=61")).status_code == 422

        waits = asyncio.create_task(client.get(f"{path}?wait=60"))
        await asyncio.wait([waits], timeout=0.1)
        assert not waits.done()
        await ledger.cancel(run.run_id)
        assert (await waits).json()["state"] == "cancelled"

        other = await ledger.submit("parse")
        waits = asyncio.create_task(client.get(f"/v1/runs/{other.run_id}?wait=60"))
        served.state.ending.set()  # the server ends, and holds nobody up
        assert (await asyncio.wait_for(waits, 50)).json()["state"] == "pending"


async def test_a_wait_ends_when_its_caller_goes_away(ledger: Ledger) -> None:
    run = await ledger.submit("parse")
    served = app(ledger, Options(open=True))
    came = [{"type": "http.request"}, {"type": "http.disconnect"}]

    async def receive() -> Any:
        return came.pop(0) if came else await asyncio.Event().wait()

    async def send(_: Any) -> None:
        pass

    scope = {
        "type": "http", "method": "GET", "path": f"/v1/runs/{run.run_id}",
        "query_string": b"wait=60", "headers": [(b"host", b"localhost")],
        "client": ("127.0.0.1", 1), "server": ("localhost", 80), "scheme": "http",
    }  # fmt: skip
    async with served.router.lifespan_context(served):
        await asyncio.wait_for(served(scope, receive, send), 50)
