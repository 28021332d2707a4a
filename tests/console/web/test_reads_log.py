"""Reads of content by the API or the pages are on record, with the reader."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import httpx
import pytest

from runfold.console.web import app
from runfold.ledger import Ledger, payload_reads
from runfold.ledger.control_history import control_history
from runfold.ledger.errors import InvalidValue
from runfold.ledger.operations.project import Project
from tests.support.runs import claimed
from tests.support.waiting import until
from tests.support.web import calling, sign_in, token


async def test_a_stream_puts_the_runs_of_a_page_on_record_at_once(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = await ledger.submit_many([{"kind": "page", "input": n} for n in range(50)])
    _, secret = await token(ledger, ["read"])
    noted: list[int] = []
    note_reads = payload_reads.note_reads

    async def counted(project: Project, run_ids: Iterable[UUID], route: str) -> None:
        await note_reads(project, run_ids, route)
        noted.append(len(list(run_ids)))

    monkeypatch.setattr(payload_reads, "note_reads", counted)
    async with calling(app(ledger), secret) as client:
        stream = asyncio.create_task(client.get("/v1/events?after=start"))
        await until(lambda: noted)
        stream.cancel()
        await asyncio.gather(stream, return_exceptions=True)

    assert noted == [len(runs)]
    assert len(await payload_reads.reads(ledger.project)) == len(runs)


async def test_each_opened_run_is_on_record_with_who_and_how_and_lists_are_not(
    ledger: Ledger,
) -> None:
    run = await ledger.submit("page", {"secret": 1})
    credential, secret = await token(ledger, ["read"])
    async with calling(app(ledger), secret) as client:
        for path in (f"/v1/runs/{run.run_id}", f"/v1/runs/{run.run_id}/history", "/v1/runs"):
            assert (await client.get(path)).status_code == 200
        await sign_in(client, secret)
        for path in (f"/p/test/runs/{run.run_id}", "/p/test/runs", f"/p/test/runs/{run.run_id}"):
            assert (await client.get(path)).status_code == 200
        assert (await client.get(f"/p/test/runs/{run.run_id}.json")).status_code == 200

    found = await payload_reads.reads(ledger.project)
    assert {read.run_id for read in found} == {run.run_id}
    assert {read.credential for read in found} == {credential}
    assert {read.route for read in found} == {
        "/v1/runs/{run_id}", "/v1/runs/{run_id}/history", "/p/{project}/runs/{run_id}",
        "/p/{project}/runs/{run_id}.json",
    }  # fmt: skip


async def test_the_approvals_and_the_stream_put_on_record_whose_content_they_show(
    ledger: Ledger,
) -> None:
    lease = await claimed(ledger, input={"a": 1})
    await ledger.ask_approval(lease, "May it?", show={"sum": 5})
    await ledger.submit("page")  # an event without content
    credential, secret = await token(ledger, ["read"])
    asked = "/v1/approvals"
    async with calling(app(ledger), secret) as client:
        assert (await client.get(asked)).status_code == 200
        await sign_in(client, secret)
        assert (await client.get("/p/test/approvals")).status_code == 200

        stream = asyncio.create_task(client.get("/v1/events?after=start"))

        async def streamed() -> bool:
            listed = await payload_reads.reads(ledger.project)
            return any(read.route == "/v1/events" for read in listed)

        await until(streamed)
        stream.cancel()

    found = await payload_reads.reads(ledger.project)
    assert {(read.run_id, read.credential) for read in found} == {(lease.run_id, credential)}
    routes = {read.route for read in found}
    assert routes == {asked, "/p/{project}/approvals", "/v1/events"}


async def test_no_list_shows_content_that_nobody_is_recorded_to_have_read(
    ledger: Ledger,
) -> None:
    lease = await claimed(ledger, input={"marked": "canary"})
    await ledger.fail(lease, "E", error_detail={"marked": "canary"})
    await ledger.submit("parse", {"marked": "canary"})
    _, secret = await token(ledger, ["read", "submit"])
    async with calling(app(ledger), secret) as client:
        await sign_in(client, secret)
        for path in (
            "/v1/runs", "/p/test.json", "/p/test/runs.json", "/p/test/runs.csv", "/p/test/runs",
            "/p/test/bulk.json?q=kind:parse", "/p/test/workers.json", "/p/test/kinds.json",
        ):  # fmt: skip
            answer = await client.get(path)
            assert answer.status_code == 200, path
            assert "parse" in answer.text or "workers" in path, path
            assert "canary" not in answer.text, path
        assert await payload_reads.reads(ledger.project) == []
        opened = (await client.get(f"/p/test/runs/{lease.run_id}.json")).json()
        assert opened["run"]["input"] == {"marked": "canary"}
        assert len(await payload_reads.reads(ledger.project)) == 1


async def test_no_answer_to_a_write_shows_content_that_nobody_is_recorded_to_have_read(
    ledger: Ledger,
) -> None:
    marked = {"marked": "canary"}
    lease = await claimed(ledger, input=marked, key="k")
    await ledger.ask_approval(lease, "May it?", show=marked)
    other = await claimed(ledger, input=marked)
    _, secret = await token(ledger, ["read", "submit", "decide"])
    asked = f"/v1/runs/{lease.run_id}"
    async with calling(app(ledger), secret) as client:
        for path, body, headers in (
            ("/v1/runs", {"kind": "parse", "input": marked}, {"Idempotency-Key": "k"}),
            (f"{asked}/signals", {"name": "x"}, {}),
            (f"{asked}/decision", {"decision": "approve"}, {"If-Match": '"3"'}),
            (f"/v1/runs/{other.run_id}/cancel", {}, {}),
        ):
            answer = await client.post(path, json=body, headers=headers)
            assert answer.is_success, answer.text
            assert answer.json()["kind"] == "parse"
            assert "canary" not in answer.text, path
    assert await payload_reads.reads(ledger.project) == []


async def test_a_read_that_was_refused_and_a_run_that_is_not_there_leave_no_record(
    ledger: Ledger,
) -> None:
    run = await ledger.submit("page")
    _, without = await token(ledger, ["submit"])
    _, reader = await token(ledger, ["read"])
    async with calling(app(ledger)) as client:
        for secret, path, status in (
            (without, f"/v1/runs/{run.run_id}", 403),
            (reader, "/v1/runs/01890000-0000-7000-8000-000000000000", 404),
            (reader, "/v1/runs/x", 422),
        ):
            headers = {"Authorization": f"Bearer {secret}"}
            assert (await client.get(path, headers=headers)).status_code == status
    assert await payload_reads.reads(ledger.project) == []


async def test_nobody_alters_the_record_of_reads(
    ledger: Ledger, web: httpx.AsyncClient, connection: asyncpg.Connection
) -> None:
    run = await ledger.submit("page")
    assert (await web.get(f"/p/test/runs/{run.run_id}")).status_code == 200
    for change in (
        "UPDATE ledger.payload_read SET credential = 'x'",
        "DELETE FROM ledger.payload_read",
        "TRUNCATE ledger.payload_read",
    ):
        with pytest.raises(asyncpg.PostgresError):
            await connection.execute(change)
    page = await web.get(f"/p/test/reads?run={run.run_id}")
    assert str(run.run_id) in page.text
    assert len((await web.get("/p/test/reads.json")).json()["reads"]) == 1


async def test_old_records_of_reads_go_on_record_and_younger_ones_stay(
    ledger: Ledger, connection: asyncpg.Connection
) -> None:
    await connection.execute(
        "INSERT INTO ledger.payload_read SELECT 'test', now() - make_interval(days => d),"
        " gen_random_uuid(), 'ann', '/x' FROM unnest(ARRAY[1, 183, 185, 400]) AS d"
    )
    drop = "SELECT ledger.drop_reads('test', 'ann', now() - $1::interval, 'enough')"
    for days in (183, -1):
        with pytest.raises(asyncpg.PostgresError, match="kept for 184 days"):
            await connection.fetchval(drop, timedelta(days=days))
    with pytest.raises(asyncpg.PostgresError, match="p_before must be given"):
        await connection.fetchval(drop, None)
    for wrong in ("NULL, now(), 'x'", "E'a\\x1b', now(), 'x'", "'ann', now(), E'a\\x1b'"):
        with pytest.raises(asyncpg.InvalidParameterValueError, match=r"p_actor|control"):
            await connection.fetchval(f"SELECT ledger.drop_reads('test', {wrong})")
    with pytest.raises(asyncpg.PostgresError, match="project typo does not exist"):
        await connection.fetchval(drop.replace("test", "typo"), timedelta(days=300))
    _, secret = await token(ledger, ["read"])
    async with connection.transaction():
        await connection.execute("SELECT set_config('runfold.token', $1, true)", secret)
        with pytest.raises(asyncpg.PostgresError, match="lacks the right admin"):
            async with connection.transaction():
                await connection.fetchval(drop, timedelta(days=300))

    assert await connection.fetchval(drop, timedelta(days=300)) == 1
    assert await connection.fetchval(drop, timedelta(days=184)) == 1
    assert await connection.fetchval(drop, timedelta(days=184)) == 0

    assert len(await payload_reads.reads(ledger.project)) == 2
    last = (await control_history(ledger.project))[-1]
    assert (last.type, last.actor, last.reason) == ("reads.dropped", "ann", "enough")
    with pytest.raises(asyncpg.PostgresError, match="append-only"):
        await connection.execute("DELETE FROM ledger.payload_read")
    assert await connection.fetchval("SELECT count(*) FROM ledger.payload_read") == 2


async def test_one_call_drops_ten_thousand_records_of_reads_at_most(
    ledger: Ledger, connection: asyncpg.Connection
) -> None:
    await connection.execute(
        "INSERT INTO ledger.payload_read SELECT 'test', now() - interval '1 year' + n * interval"
        " '1 ms', gen_random_uuid(), 'ann', '/x' FROM generate_series(1, 10001) AS n"
    )
    drop = "SELECT ledger.drop_reads('test', 'ann', now() - interval '200 days')"
    assert [await connection.fetchval(drop) for _ in range(3)] == [10_000, 1, 0]


async def test_the_owner_drops_old_records_of_reads_by_one_order(
    ledger: Ledger, connection: asyncpg.Connection
) -> None:
    await connection.execute(
        "INSERT INTO ledger.payload_read SELECT 'test', now() - make_interval(days => d),"
        " gen_random_uuid(), 'ann', '/x' FROM unnest(ARRAY[1, 250, 400]) AS d"
    )
    with pytest.raises(InvalidValue, match="kept for 184 days"):
        await payload_reads.drop_reads(ledger.project, datetime.now(UTC))
    with pytest.raises(InvalidValue, match="actor ''"):
        await payload_reads.drop_reads(ledger.project, datetime.now(UTC), actor="")
    with pytest.raises(InvalidValue, match="no time zone"):
        await payload_reads.drop_reads(ledger.project, datetime(2020, 1, 1))  # noqa: DTZ001

    before = datetime.now(UTC) - timedelta(days=200)
    assert await payload_reads.drop_reads(ledger.project, before, actor="ann", reason=" old") == 2

    assert len(await payload_reads.reads(ledger.project)) == 1
    last = (await control_history(ledger.project))[-1]
    assert (last.type, last.actor, last.reason) == ("reads.dropped", "ann", " old")
