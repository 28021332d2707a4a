"""The shop: an order and its run commit together or not at all, over a real web server."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import httpx
import pytest
from examples import shop

from runfold.ledger import Ledger, State
from tests.support.databases import PROJECT, sqlalchemy_url
from tests.support.waiting import BOUND, until
from tests.support.working import working

ROOT = Path(__file__).parents[2]


@pytest.fixture
async def client(database: str, connection: asyncpg.Connection) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the shop, which is served by a process of its own."""
    listener = socket.create_server(("127.0.0.1", 0))  # a port that nobody takes meanwhile
    port, number = listener.getsockname()[1], listener.fileno()
    options = ["--fd", str(number), "--log-level", "warning"]
    words = [sys.executable, "-m", "uvicorn", "examples.shop:app", *options]
    environment = {
        **os.environ,
        "DATABASE_URL": sqlalchemy_url(database),
        "RUNFOLD_PROJECT": PROJECT,
    }
    server = await asyncio.to_thread(
        subprocess.Popen, words, env=environment, cwd=ROOT, pass_fds=[number]
    )
    listener.close()
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=BOUND) as opened:
            await until(lambda: answers(opened))
            await connection.execute("INSERT INTO shop_article VALUES ('lamp', 5), ('sofa', 5)")
            yield opened
    finally:
        server.terminate()
        await asyncio.to_thread(server.wait, BOUND)


async def answers(client: httpx.AsyncClient) -> bool:
    """Whether the server is up."""
    try:
        return (await client.get("/openapi.json")).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


async def test_an_order_and_its_run_commit_together_or_not_at_all(
    client: httpx.AsyncClient, ledger: Ledger, connection: asyncpg.Connection
) -> None:
    made = (
        (await client.post("/orders", json={"article": "lamp", "quantity": 3}))
        .raise_for_status()
        .json()
    )
    refused = await client.post("/orders", json={"article": "lamp", "quantity": 3})
    unknown = await client.post("/orders", json={"article": "chair", "quantity": 1})
    nonsense = await client.post("/orders", json={"article": "lamp", "quantity": -1})

    assert (refused.status_code, unknown.status_code, nonsense.status_code) == (409, 404, 422)
    assert refused.json()["detail"] == "only 2 left"
    assert [str(run.run_id) for run in await ledger.runs()] == [made["run_id"]]
    assert (await client.get("/orders/1")).json()["state"] == State.PENDING
    async with working(ledger, shop.fulfil):
        await until(lambda: fulfilled(client))
    assert (await client.get("/orders/1")).json()["parcel"] == "3 x lamp, 6 kg"
    assert (await client.get("/orders/2")).status_code == httpx.codes.NOT_FOUND
    await assert_many_orders_at_once_sell_only_what_is_there(client)
    assert len(await ledger.runs()) == 1 + 5
    assert await connection.fetchval("SELECT stock FROM shop_article WHERE name = 'sofa'") == 0


async def fulfilled(client: httpx.AsyncClient) -> bool:
    """Whether the first order's run has completed."""
    return bool((await client.get("/orders/1")).json()["state"] == State.COMPLETED)


async def assert_many_orders_at_once_sell_only_what_is_there(client: httpx.AsyncClient) -> None:
    """Order more than there is, of the same server: to start another would take longer."""
    answers = await asyncio.gather(
        *(client.post("/orders", json={"article": "sofa", "quantity": 1}) for _ in range(12))
    )

    assert sorted(answer.status_code for answer in answers) == [201] * 5 + [409] * 7
