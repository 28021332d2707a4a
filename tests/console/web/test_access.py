"""Who may call: tokens, rights, projects, origins; what bad input is answered with."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator

import asyncpg
import httpx
import pytest
from fastapi import FastAPI
from starlette.types import Message

from runfold.console.shared.token_ledger import token_ledger
from runfold.console.web import app, guard
from runfold.console.web.options import Options
from runfold.console.web.problems import MEANINGS
from runfold.console.web.rates import Rates, TooManyRequests
from runfold.ledger import Ledger, State, access, api_tokens, payload_reads
from runfold.ledger.api_tokens import SECRET_PREFIX
from runfold.ledger.errors import AccessDenied
from runfold.ledger.postgres.opening import opened
from runfold.ledger.settings import Settings
from runfold.projections import CatchUp, install
from runfold.projections.declared.installing import declared
from tests.support.logins import with_login
from tests.support.runs import claimed, event_count, waiting
from tests.support.waiting import BOUND, until
from tests.support.web import calling, sign_in, token


async def other_project(database: str) -> None:
    """Make a second project."""
    async with opened(database, Settings.load()) as found:
        await found.create_project("other")


@pytest.fixture
async def stranger(ledger: Ledger, database: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client with every right in another project, and none in the one that the ledger is of."""
    await other_project(database)
    credential, secret = await api_tokens.make_token(ledger.project, "stranger")
    async with Ledger.open(database, "other") as other:
        await other.grant_access(credential, ["submit", "work", "read", "decide", "audit"])
        async with calling(app(ledger, Options(strangers_a_second=1_000)), secret) as client:
            yield client


async def test_another_project_answers_as_one_that_is_not_there(
    stranger: httpx.AsyncClient, ledger: Ledger
) -> None:
    run = await ledger.submit("parse", {"secret": 1})
    asked = await ledger.submit("parse")
    lease = {"token": 2, "worker_id": "w"}
    calls = [
        ("GET", f"/v1/runs/{run.run_id}", None), ("GET", "/v1/runs", None),
        ("GET", f"/v1/runs/{run.run_id}/history", None), ("GET", "/v1/events?after=start", None),
        ("GET", f"/v1/runs/{run.run_id}/verify", None), ("GET", "/v1/kinds", None),
        ("POST", f"/v1/runs/{asked.run_id}/decision", {"decision": "approve"}),
        ("POST", f"/v1/runs/{run.run_id}/cancel", {}), ("POST", "/v1/runs", {"kind": "x"}),
        ("POST", "/v1/claims", {"worker_id": "w"}), ("POST", "/v1/integrity/verify", None),
        ("POST", f"/v1/runs/{run.run_id}/complete", lease),
        ("POST", "/v1/heartbeats", {"leases": [{"run_id": str(run.run_id), **lease}]}),
        ("POST", f"/v1/runs/{run.run_id}/signals", {"name": "x"}),
    ]  # fmt: skip
    for method, path, body in calls:
        answers = []
        for project in ("test", "nowhere"):
            headers = {"Runfold-Project": project}
            if path.endswith("decision"):
                headers["If-Match"] = '"2"'
            answer = await stranger.request(method, path, json=body, headers=headers)
            answers.append((answer.status_code, answer.text.replace(project, "P")))
        assert answers[0] == answers[1], path
        assert answers[0][0] == 404, path
    assert (await ledger.get(run.run_id)).version == 1


async def test_all_projects_together_are_no_project(web: httpx.AsyncClient, ledger: Ledger) -> None:
    """Neither to this machine, nor to a token with every right in all of them."""
    credential, secret = await api_tokens.make_token(ledger.project, "all")
    await ledger.grant_access(credential, access.RIGHTS, everywhere=True)
    async with calling(app(ledger), secret) as client:
        await sign_in(client, secret)
        for each in (web, client):
            for path in ("/v1/runs", "/v1/kinds", "/p/%2A/runs", "/p/%2A/audit/all.json"):
                answer = await each.get(path, headers={"Runfold-Project": "*"})
                assert answer.status_code == 404, path
            assert (await each.get("/v1/metrics")).status_code == 200


async def test_a_token_reads_its_own_project(stranger: httpx.AsyncClient) -> None:
    mine = {"Runfold-Project": "other"}
    made = await stranger.post("/v1/runs", json={"kind": "x"}, headers=mine)
    read = await stranger.get(made.headers["location"], headers=mine)

    assert read.json()["project_id"] == "other"


async def test_a_revoked_token_is_refused_at_once_and_counted(ledger: Ledger) -> None:
    credential, secret = await token(ledger, ["read"])
    async with calling(app(ledger), secret) as client:
        before = await client.get("/v1/runs")
        await api_tokens.revoke_token(ledger.project, credential)
        after = await client.get("/v1/runs")

    assert (before.status_code, after.status_code) == (200, 401)
    [kept] = await api_tokens.tokens(ledger.project)
    assert kept.failed_uses == 1


async def test_no_connection_keeps_a_token_for_the_next_caller(ledger: Ledger) -> None:
    _, secret = await token(ledger, ["submit"])
    async with calling(app(ledger), secret) as client:
        for kind in ("a", "b", "", "c" * 999):  # the last two are refused
            await client.post("/v1/runs", json={"kind": kind})
    async with ledger.pool.acquire() as connection:
        assert not await connection.fetchval("SELECT current_setting('runfold.token', true)")


async def test_a_worker_speaks_for_no_other_name(ledger: Ledger) -> None:
    _, secret = await token(ledger, ["work", "submit"], actors=["w:*"])
    await ledger.submit("parse")
    async with calling(app(ledger), secret) as client:
        other = await client.post("/v1/claims", json={"worker_id": "ann"})
        own = await client.post("/v1/claims", json={"worker_id": "w:1"})

    assert (other.status_code, other.json()["code"]) == (403, "access-denied")
    assert own.json()["leases"][0]["worker_id"] == "w:1"


async def test_the_lease_of_another_credential_is_lost(ledger: Ledger) -> None:
    lease = await claimed(ledger, "w:1")
    _, secret = await token(ledger, ["work"], actors=["*"])
    async with calling(app(ledger), secret) as client:
        path = f"/v1/runs/{lease.run_id}/complete"
        answer = await client.post(path, json={"token": lease.token, "worker_id": "w:1"})

    assert (answer.status_code, answer.json()["code"]) == (409, "lease-lost")


async def test_a_decision_is_for_the_request_that_was_read(
    web: httpx.AsyncClient, ledger: Ledger
) -> None:
    lease = await waiting(ledger, State.WAITING_APPROVAL, park=True)
    path = f"/v1/runs/{lease.run_id}/decision"
    asked = (await web.get("/v1/approvals")).json()["approvals"][0]
    decision = {"decision": "approve", "actor": "ann"}
    without = await web.post(path, json=decision)
    stale = await web.post(path, json=decision, headers={"If-Match": '"1"'})
    current = {"If-Match": f'"{asked["version"]}"'}
    right = await web.post(path, json=decision, headers=current)
    twice = await web.post(path, json=decision, headers=current)

    codes = [each.status_code for each in (without, stale, right, twice)]
    assert codes == [422, 409, 200, 409]


async def test_a_decision_names_what_was_shown_and_is_refused_for_anything_else(
    web: httpx.AsyncClient, ledger: Ledger
) -> None:
    lease = await waiting(ledger, State.WAITING_APPROVAL, park=True)
    path = f"/v1/runs/{lease.run_id}/decision"
    asked = (await web.get("/v1/approvals")).json()["approvals"][0]
    match = {"If-Match": f'"{asked["version"]}"'}
    said = {"decision": "approve", "actor": "ann"}
    other = await web.post(path, json={**said, "shown_sha256": "0" * 64}, headers=match)
    none = await web.post(path, json={**said, "shown_sha256": "0"}, headers=match)
    right = {**said, "shown_sha256": asked["shown_sha256"]}
    decided = await web.post(path, json=right, headers=match)

    assert [each.status_code for each in (other, none, decided)] == [409, 422, 200]


FOREIGN = (
    ({"Host": "evil.example"}, "foreign-host"),
    ({"Host": "127.0.0.1.evil.example:7700"}, "foreign-host"),
    ({"X-Forwarded-For": "203.0.113.9"}, "foreign-host"),
    ({"X-Forwarded-Proto": "https"}, "foreign-host"),
    ({"Via": "1.1 proxy"}, "foreign-host"),
    ({"Sec-Fetch-Site": "same-origin", "Referer": "https://runs.example/p/test"}, "foreign-host"),
    ({"Origin": "https://evil.example"}, "foreign-origin"),
    ({"Origin": "null"}, "foreign-origin"),
    ({"Sec-Fetch-Site": "cross-site"}, "foreign-origin"),
    ({"Content-Encoding": "gzip"}, "unsupported-media-type"),
    ({"Content-Type": "application/x-www-form-urlencoded"}, "unsupported-media-type"),
    ({"Authorization": "Basic YTpi"}, "unauthenticated"),
)


async def test_a_foreign_page_changes_nothing(
    web: httpx.AsyncClient, ledger: Ledger, subtests: pytest.Subtests
) -> None:
    for headers, code in FOREIGN:
        with subtests.test(f"{headers}"):
            answer = await web.post("/v1/runs", json={"kind": "x"}, headers=headers)

            assert answer.json()["code"] == code
            assert await ledger.runs() == []


async def test_a_header_that_is_given_twice_is_refused(
    web: httpx.AsyncClient, subtests: pytest.Subtests
) -> None:
    for name in ("Runfold-Project", "authorization", "Idempotency-Key", "IF-MATCH"):
        with subtests.test(name):
            twice = [(name, "test"), (name.lower(), "other")]
            answer = await web.post("/v1/runs", json={"kind": "x"}, headers=twice)
            assert (answer.status_code, answer.json()["code"]) == (422, "invalid-value")
            assert "is given twice" in answer.json()["detail"]


async def test_an_open_server_answers_no_proxy_that_does_not_say_so(ledger: Ledger) -> None:
    """As nginx asks that is told no more than where to pass requests on."""
    answered: list[int] = []

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        answered.append(message.get("status", 0))

    scope = {
        "type": "http", "http_version": "1.0", "method": "GET", "path": "/v1/runs",
        "query_string": b"", "headers": [(b"host", b"127.0.0.1:7700"), (b"connection", b"close")],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 7700), "scheme": "http",
    }  # fmt: skip
    served = app(ledger, Options(open=True))
    async with served.router.lifespan_context(served):
        await served(scope, receive, send)
        await served({**scope, "http_version": "1.1"}, receive, send)
    assert [status for status in answered if status] == [403, 200]


async def test_a_token_that_is_left_empty_is_said_to_be_missing(web: httpx.AsyncClient) -> None:
    answer = await web.get("/v1/runs", headers={"Authorization": "Bearer "})

    assert answer.json()["code"] == "unauthenticated"
    assert "has no secret" in answer.json()["detail"]


BAD_BODIES = (
    (b'{"kind": "x", "input": "' + b"a" * 200_000 + b'"}', "body-too-large"),
    (b'{"kind": "x", "input": ' + b"[" * 5_000 + b"]" * 5_000 + b"}", "body-too-deep"),
    (b'{"kind": "x", "input": ' + b"[" * 100_000, "body-too-deep"),
    (b'{"kind": "x", "input": NaN}', "invalid-value"),
    (b'{"kind": "x", "input": "\\u0000"}', "invalid-value"),
    (b'{"kind": "x", "input": "\\ud800"}', "invalid-value"),
    (b'{"kind": "a\\u202eb"}', "invalid-value"),
    (b'{"kind": "a\\nb"}', "invalid-value"),
    (b'{"kind": "x", "actor": "a\\u0007"}', "invalid-value"),
    (b'{"kind": "x", "tags": "t"}', "invalid-value"),
    (b'{"kind": "x", "delay": 1e999}', "invalid-value"),
    (b'{"kind": "x"', "invalid-value"),
    (b"\xff\xfe", "invalid-value"),
    (b'{"kind": "\xff"}', "bad-request"),
    (b'{"kind": "x", "priority": ' + b"9" * 5_000 + b"}", "bad-request"),
    (b"[]", "invalid-value"),
    (b"", "invalid-value"),
)


async def test_bad_input_is_a_problem_and_nothing_is_written(
    web: httpx.AsyncClient, ledger: Ledger, subtests: pytest.Subtests
) -> None:
    for body, code in BAD_BODIES:
        with subtests.test(f"{body[:40]!r}"):
            answer = await web.post(
                "/v1/runs", content=body, headers={"Content-Type": "application/JSON"}
            )

            assert answer.json()["code"] == code, answer.text
            assert MEANINGS[code][0] == answer.status_code
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert await ledger.runs() == []


async def test_a_body_that_comes_in_parts_has_the_same_limits(
    web: httpx.AsyncClient, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a length that says beforehand how much will come, or whether anything will."""

    async def large() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * 10_000

    async def stuck() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    too_large = await web.post("/v1/runs", content=large())
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.05)
    too_slow = await web.post("/v1/runs", content=stuck())

    assert (too_large.status_code, too_large.json()["code"]) == (413, "body-too-large")
    assert (too_slow.status_code, too_slow.json()["code"]) == (408, "body-too-slow")
    assert await ledger.runs() == []


async def test_a_body_that_is_cut_off_does_nothing(ledger: Ledger) -> None:
    """What came of it may be whole in itself: some lines, or a form without its last fields."""
    lease = await claimed(ledger)
    waits = await ledger.ask_approval(lease, "Refund?", show={"amount": 250})
    before = await event_count(ledger)
    served = app(ledger, Options(open=True))
    lines = ("/v1/runs/lines", "application/x-ndjson", b'{"kind": "a"}\n')
    form = (
        f"/p/test/approvals/{lease.run_id}/{waits.version}",
        "application/x-www-form-urlencoded",
        b"decision=approve&person=ann",
    )
    async with served.router.lifespan_context(served):
        for path, kind, part in (lines, form):
            sent = await cut_off(served, path, kind, part)

            assert (sent, await event_count(ledger)) == ([], before)


async def cut_off(served: FastAPI, path: str, kind: str, part: bytes) -> list[Message]:
    """Post a part of a body and go away; return what the server sent."""
    sent: list[Message] = []
    coming: Iterator[Message] = iter(
        [{"type": "http.request", "body": part, "more_body": True}, {"type": "http.disconnect"}]
    )

    async def receive() -> Message:
        return next(coming)

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"host", b"localhost"), (b"content-type", kind.encode())]
    scope = {"type": "http", "method": "POST", "scheme": "http", "path": path}
    await served({**scope, "query_string": b"", "headers": headers}, receive, send)
    return sent


async def test_what_is_no_token_of_ours_asks_the_database_nothing(ledger: Ledger) -> None:
    for secret in ("x", f"{SECRET_PREFIX}{'x' * 500}"):
        async with calling(app(ledger), secret) as client:
            answer = await client.get("/v1/runs")
            assert answer.status_code == 401
            assert "not an API token of Runfold" in answer.text


NONSENSE = (
    "/v1/runs/x", "/v1/runs/%00", "/v1/runs/..%2f..%2fetc", "/v1/runs?limit=-1",
    "/v1/runs?limit=1e9", "/v1/runs?q=state:nothing", "/v1/runs?before=%F0%28%8C", "/v1/none",
    "/v1/runs/0197c2a1-0000-7000-8000-000000000000/state?at=%E2%80%AE1",
    "/v1/runs/0197c2a1-0000-7000-8000-000000000000/state?at=0001-01-01T00:00:00%2B14:00",
    "/v1/events?after=1/1:9:5,3@0//0", "/v1/events?after=1/1:9:9@0//0",
    "/v1/events?after=1/1:9:,@0//0", "/v1/events?after=1/0:0:@0//0",
    "/v1/events?after=1/18446744073709551615:18446744073709551615:@0//0",
    "/v1/events?after=99999999999/1:1:@0//0", "/v1/events?after=1/1:1:@9999999999999999999//0",
    "/v1/events?after=nonsense", "/v1/events?states=none", "/v1/problems/none",
    "/v1/kinds/%0A/history",
)  # fmt: skip


async def test_nonsense_in_a_path_is_a_problem(
    web: httpx.AsyncClient, subtests: pytest.Subtests
) -> None:
    for path in NONSENSE:
        with subtests.test(path):
            answer = await web.get(path)

            assert answer.status_code in {404, 422}, answer.text
            assert set(json.loads(answer.text)) >= {"type", "title", "status", "code", "detail"}


async def test_a_caller_that_asks_too_often_is_told_when_to_come_again(ledger: Ledger) -> None:
    _, secret = await token(ledger, ["read", "work"])
    async with calling(app(ledger, Options(requests_a_second=1)), secret) as client:
        answers = [await client.get("/v1/kinds") for _ in range(12)]
        beat = {"run_id": "0197c2a1-0000-7000-8000-000000000000", "token": 2, "worker_id": "w"}
        kept = await client.post("/v1/heartbeats", json={"leases": [beat]})

    refused = [answer for answer in answers if answer.status_code == 429]
    assert refused
    assert int(refused[0].headers["retry-after"]) >= 1
    assert kept.status_code != 429


def test_a_bucket_fills_steadily() -> None:
    now = [0.0]
    rates = Rates(2, 2, lambda: now[0])
    rates.take("a")
    rates.take("a")
    with pytest.raises(TooManyRequests):
        rates.take("a")
    rates.take("b")
    now[0] = 0.5
    rates.take("a")


async def test_a_login_with_few_rights_serves_tokens(
    ledger: Ledger, database: str, connection: asyncpg.Connection
) -> None:
    _, secret = await token(ledger, ["submit", "read"])
    async with (
        with_login(database, "runfold_worker", rights=["read"]) as url,
        Ledger.open(url, "test") as narrow,
        calling(app(narrow), secret) as client,
    ):
        made = await client.post("/v1/runs", json={"kind": "x", "input": [1]})
        read = await client.get(made.headers["location"])

    assert read.json()["input"] == [1]


async def test_a_person_with_one_project_sees_its_pages_by_a_login_with_few_rights(
    ledger: Ledger, database: str
) -> None:
    """Counts, costs and checks are of the project, though progress is that of all projects."""
    run = await ledger.submit("x")
    for name in ("run_counts", "spending"):
        projection = declared(())[name]
        await install(ledger.pool, projection)
        await CatchUp(ledger.pool, projection).to_the_end()
    _, secret = await token(ledger, ["read"])
    async with (
        with_login(database, "runfold_worker", rights=["read"]) as url,
        Ledger.open(url, "test") as narrow,
        calling(app(narrow), secret) as client,
    ):
        await sign_in(client, secret)
        overview = (await client.get("/p/test.json")).json()
        cost = (await client.get("/p/test/cost.json")).json()
        integrity = await client.get("/p/test/integrity.json")
        refused = await client.get(f"/p/test/integrity.json?run={run.run_id}")

    assert overview["counts"]["pending"] == 1
    assert [day["submitted"] for day in cost["days"]] == [1]
    assert integrity.json()["last_verify"] is None
    assert "program's login" in refused.json()["remedy"]

    async with (
        with_login(database, "runfold_worker", "runfold_auditor", rights=["read"]) as url,
        Ledger.open(url, "test") as auditing,
        calling(app(auditing), secret) as client,
    ):
        await sign_in(client, secret)
        checked = await client.get(f"/p/test/integrity.json?run={run.run_id}")

    assert checked.json()["report"]["findings"] == []


async def test_a_person_who_may_decide_and_no_more_decides(ledger: Ledger, database: str) -> None:
    _, secret = await token(ledger, ["decide"], actors=["ann"])
    lease = await waiting(ledger, State.WAITING_APPROVAL, park=True)
    version = (await ledger.get(lease.run_id)).version
    path, match = f"/v1/runs/{lease.run_id}/decision", {"If-Match": f'"{version}"'}
    async with (
        with_login(database, "runfold_worker", rights=["read"]) as url,
        Ledger.open(url, "test") as narrow,
        calling(app(narrow), secret) as client,
    ):
        other = {"decision": "approve", "actor": "bob"}
        refused = await client.post(path, json=other, headers=match)
        decided = await client.post(path, json={**other, "actor": "ann"}, headers=match)

    assert (refused.status_code, refused.json()["code"]) == (403, "access-denied")
    assert decided.status_code == 200, decided.text
    assert "output" not in decided.json()


async def test_a_stream_ends_with_the_token(ledger: Ledger) -> None:
    credential, secret = await token(ledger, ["read"])
    await ledger.submit("a", {"n": 1})
    served = app(ledger)

    async with calling(served, secret) as client:
        stream = asyncio.create_task(client.get("/v1/events?after=start"))
        await until(lambda: payload_reads.reads(ledger.project))  # the first event is sent
        await api_tokens.revoke_token(ledger.project, credential)
        text = (await stream).text
        assert not served.state.streams

    assert "event: problem" in text
    assert '"code": "unauthenticated"' in text


async def test_a_stream_that_waits_for_an_event_ends_with_the_token(ledger: Ledger) -> None:
    credential, secret = await token(ledger, ["read"])
    await ledger.submit("a")
    following = aiter(token_ledger(ledger, secret, credential, "test").subscribe())
    await anext(following)
    await api_tokens.revoke_token(ledger.project, credential)

    with pytest.raises(AccessDenied, match="revoked"):
        await asyncio.wait_for(anext(following), BOUND)


async def test_no_more_streams_are_served_than_the_server_allows(ledger: Ledger) -> None:
    async with calling(app(ledger, Options(open=True, max_streams=0))) as client:
        answer = await client.get("/v1/events")

    assert (answer.status_code, answer.json()["code"]) == (429, "too-many-requests")


async def test_one_caller_leaves_streams_to_the_others(ledger: Ledger) -> None:
    served = app(ledger, Options(max_streams=4))
    (one, greedy), (other, modest) = [await token(ledger, ["read"]) for _ in range(2)]
    async with calling(served, greedy) as client:
        streams = [asyncio.create_task(client.get("/v1/events")) for _ in range(2)]
        await until(lambda: served.state.streams == {one: 2})
        refused = await client.get("/v1/events")
        theirs = {"Authorization": f"Bearer {modest}"}
        streams.append(asyncio.create_task(client.get("/v1/events", headers=theirs)))
        await until(lambda: served.state.streams == {one: 2, other: 1})
        served.state.ending.set()
        ended = await asyncio.gather(*streams)

    assert (refused.status_code, refused.headers["retry-after"]) == (429, "5")
    assert {stream.status_code for stream in ended} == {200}
    assert not served.state.streams


async def test_secrets_are_not_guessed_as_fast_as_the_database_answers(ledger: Ledger) -> None:
    async with calling(app(ledger, Options(strangers_a_second=1))) as client:
        answers = [
            await client.get("/v1/runs", headers={"Authorization": f"Bearer runfold_{guess}"})
            for guess in range(12)
        ]

    assert [answer.status_code for answer in answers][:2] == [401, 401]
    assert 429 in {answer.status_code for answer in answers}
