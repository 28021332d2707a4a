"""The server's connections: how long they may be without a request, and an answer unread."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from runfold.console.shared.addresses import shown_address
from runfold.console.web import app, serving
from runfold.console.web.options import Options, is_open
from runfold.ledger import Ledger
from tests.support.server_folder import open_folder
from tests.support.waiting import BOUND, until

ASKED = b"GET /held HTTP/1.1\r\nHost: localhost\r\n"


class _Quiet(serving.Server):
    """A server that leaves signals to the tests."""

    def capture_signals(self) -> Any:
        return nullcontext()


@asynccontextmanager
async def serving_alone(app: FastAPI) -> AsyncIterator[int]:
    """Serve an application that needs no ledger; yield the port."""
    app.state.ending = asyncio.Event()
    with serving.listening("127.0.0.1", 0) as listener:
        server = _Quiet(app)
        running = asyncio.create_task(server.serve([listener]))
        await until(lambda: server.started)
        yield listener.getsockname()[1]
        server.end()
        await running


async def test_a_connection_ends_that_brings_no_request_and_none_that_waits_for_its_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert serving.Server(FastAPI()).config.timeout_keep_alive > 60, "as long as proxies do"
    monkeypatch.setattr(serving, "REQUEST_SECONDS", 0.05)
    app, is_held, may_answer = FastAPI(), asyncio.Event(), asyncio.Event()

    @app.get("/held")
    async def held() -> str:
        is_held.set()
        await may_answer.wait()
        return "answered"

    async with serving_alone(app) as port, AsyncExitStack() as stack:

        async def sent(octets: bytes) -> asyncio.StreamReader:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            stack.callback(writer.close)
            writer.write(octets)
            return reader

        held_one = await sent(ASKED + b"\r\n")
        await asyncio.wait_for(is_held.wait(), BOUND)
        for octets in (b"", ASKED, b"GET /none HTTP/1.1\r\nHost: localhost\r\n\r\n" + ASKED):
            silent = await sent(octets)  # it connects after the one that is held, and ends before
            try:
                await asyncio.wait_for(silent.read(), BOUND)
            except ConnectionResetError:
                continue
        may_answer.set()
        head = await asyncio.wait_for(held_one.readuntil(b"\r\n\r\n"), BOUND)

    assert head.startswith(b"HTTP/1.1 200")


async def test_a_connection_ends_whose_client_does_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(serving, "READ_SECONDS", 0.05)
    app, has_ended = FastAPI(), asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * 65_536
                await asyncio.sleep(0)  # to send may not wait for anything
        finally:
            has_ended.set()

    @app.get("/held")
    async def held() -> StreamingResponse:
        return StreamingResponse(endless())

    async with serving_alone(app) as port:
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(ASKED + b"\r\n")
            await asyncio.wait_for(has_ended.wait(), BOUND)


async def test_an_offer_of_http_2_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    async with serving_alone(FastAPI()) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
        writer.write(b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n")
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), BOUND)
        writer.close()

    assert head.startswith(b"HTTP/1.1 404")
    assert caplog.messages == []


def test_an_answer_is_sent_at_once() -> None:
    with (
        serving.listening("127.0.0.1", 0) as listener,
        socket.create_connection(listener.getsockname()),
        listener.accept()[0] as accepted,
    ):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_a_server_on_a_unix_domain_socket_asks_for_tokens_and_says_where_it_is(
    ledger: Ledger,
) -> None:
    """As behind a proxy on the same machine, whose socket systemd keeps."""
    with open_folder() as folder, socket.socket(socket.AF_UNIX) as listener:
        path = str(folder / "socket")
        listener.bind(path)
        bound = str(listener.getsockname()[0])
        server = _Quiet(app(ledger, Options(open=is_open(bound, "development"))))
        serve = asyncio.create_task(server.serve([listener]))
        await until(lambda: server.started)
        transport = httpx.AsyncHTTPTransport(uds=path)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            answer = await client.get("/v1/runs")
        told = shown_address(bound, listener)
        server.end()
        await serve

    assert (answer.status_code, told) == (401, f"unix:{path}")
