"""An HTTP server that records what it is sent and answers as a test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from tests.support.waiting import BOUND


@dataclass
class Receiver:
    """What came, and the answers that are left to give: a status, else 204; 0 hangs up."""

    url: str = ""
    requests: list[tuple[dict[str, str], str]] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    headers: str = ""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take one request; a client may also go away before it has sent one."""
        try:
            with suppress(asyncio.IncompleteReadError):
                await self._answer(reader, writer)
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:-2]
        headers = {
            name.lower(): value for name, _, value in (line.partition(": ") for line in head)
        }
        body = (await reader.readexactly(int(headers.get("content-length", 0)))).decode()
        self.requests.append((headers, body))
        status = self.answers.pop(0) if self.answers else 204
        if status:
            answer = f"HTTP/1.1 {status} So\r\n{self.headers}content-length: 0\r\n\r\n"
            writer.write(answer.encode())

    @property
    def ids(self) -> list[str]:
        """The ids of the messages that came."""
        return [headers["webhook-id"] for headers, _ in self.requests]


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """Run a receiver on this machine."""
    receiver = Receiver()
    server = await asyncio.start_server(receiver.handle, "127.0.0.1", 0)
    receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
    async with server:
        yield receiver


@asynccontextmanager
async def swallowing() -> AsyncIterator[str]:
    """Run a server that takes connections and never answers; yield its URL."""
    over, writers = asyncio.Event(), list[asyncio.StreamWriter]()

    async def hold(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await over.wait()
        writer.close()

    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    over.set()
    server.close()
    for writer in writers:
        writer.close()
        await asyncio.wait_for(writer.wait_closed(), BOUND)
