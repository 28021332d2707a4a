"""A TCP proxy before a PostgreSQL server that loses connections in every way of a network."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import parse_qs, urlsplit

CHUNK = 65_536
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER with no time: the connection ends with a reset, not in order."""

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Proxy:
    """Pass bytes between clients and a server until a method breaks the connections."""

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)
        self._query = {name: values[0] for name, values in parse_qs(self._parts.query).items()}
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self._port = 0
        self.delay = 0.0
        """Seconds that every chunk is held back."""
        self.refusing = False
        """New connections are reset."""
        self.accepted = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """The database's URL through the proxy."""
        user = self._parts.username or "postgres"
        password = f":{self._parts.password}" if self._parts.password else ""
        return f"postgresql://{user}{password}@127.0.0.1:{self._port}{self._parts.path}?sslmode=disable"

    def reset(self) -> int:
        """End every connection with a reset on both sides; gives how many."""
        pairs = list(self._pairs)
        for pair in pairs:
            for writer in pair:
                _reset(writer)
        return len(pairs)

    def half_close(self) -> int:
        """End the server's half of every connection, unknown to the server; return how many."""
        pairs = list(self._pairs)
        for client, _ in pairs:
            with suppress(OSError):
                client.write_eof()
        return len(pairs)

    def swallow(self) -> None:
        """Keep every connection, old or new, and let nothing through, in either direction."""
        self._flows.clear()

    def forget(self) -> None:
        """Let new connections through; the present ones stay open and silent for ever."""
        self._flows = asyncio.Event()
        self._flows.set()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client."""
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """End everything."""
        self.reset()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self.refusing:
            _reset(writer)
            return
        try:
            upstream, server = await self._connect()
        except OSError:
            _reset(writer)
            return
        pair = (writer, server)
        self._pairs.add(pair)
        try:
            await asyncio.gather(self._pump(reader, server), self._pump(upstream, writer))
        finally:
            self._pairs.discard(pair)
            for one in pair:
                one.close()

    async def _connect(self) -> Stream:
        if (host := self._query.get("host", "")).startswith("/"):
            return await asyncio.open_unix_connection(
                f"{host}/.s.PGSQL.{self._query.get('port', '5432')}"
            )
        return await asyncio.open_connection(self._parts.hostname, self._parts.port or 5432)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        flows = self._flows
        with suppress(OSError):
            while chunk := await reader.read(CHUNK):
                await asyncio.sleep(self.delay)
                await flows.wait()
                writer.write(chunk)
                await writer.drain()
            writer.write_eof()


@asynccontextmanager
async def proxied(url: str) -> AsyncIterator[Proxy]:
    """Have a proxy before the server of a URL."""
    proxy = Proxy(url)
    serving = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    proxy._port = serving.sockets[0].getsockname()[1]  # noqa: SLF001  known only now
    try:
        yield proxy
    finally:
        serving.close()
        await proxy.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    found = writer.get_extra_info("socket")
    if found is not None and found.family != socket.AF_UNIX:
        with suppress(OSError):  # it is closed already
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()
