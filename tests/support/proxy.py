"""A TCP proxy before a PostgreSQL server that loses connections in every way of a network."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

CHUNK = 65_536
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER with no time: the connection ends with a reset, not in order."""

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


_PARSE = rb"P....(__asyncpg_[^\0]*)\0[^\0]*?%s"
_BIND = rb"B....\0(__asyncpg_[^\0]*)\0"
"""Messages of the protocol: a statement gets a name, and is done by its name."""
_READY = b"Z\0\0\0\5I"
"""The server's last message of an answer: the transaction is over."""


@dataclass
class Watch:
    """What is known of a connection whose answers may be lost."""

    names: set[bytes] = field(default_factory=set)
    is_awaited: bool = False
    is_marked: bool = False


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
        self.swallowed = 0
        """Chunks that `swallow` has kept so far."""
        self.lost = 0
        """Answers that were lost."""
        self._losing, self._to_lose, self._mark = b"", 0, b""
        self._refusals: Sequence[str] = ()
        self.refused: Counter[str] = Counter()
        """How often a login was refused with each SQLSTATE."""
        self.accepted = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._clients: set[asyncio.StreamWriter] = set()
        self._is_closed = False

    @property
    def url(self) -> str:
        """The database's URL through the proxy."""
        user = self._parts.username or "postgres"
        password = f":{self._parts.password}" if self._parts.password else ""
        return f"postgresql://{user}{password}@127.0.0.1:{self._port}{self._parts.path}?sslmode=disable"

    def reset(self) -> int:
        """End every connection with a reset on both sides; return how many."""
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

    def lose_answers(self, statement: bytes, count: int) -> None:
        """Lose the answer to a statement this many times, and the connection with it."""
        self._losing, self._to_lose = statement, count

    def lose_marked(self, mark: bytes) -> None:
        """Lose what the server says from a mark in it until it is ready again, and then the client.

        A notice that a trigger raises is such a mark: the write is done when its answer is lost.
        """
        self._mark = mark

    def refuse_logins(self, *codes: str) -> None:
        """Answer new logins as a server that refuses them, with one SQLSTATE after the other."""
        self._refusals = codes

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client."""
        if self._is_closed:
            writer.transport.abort()
            return
        self._clients.add(writer)
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: self._clients.discard(writer))

    async def close(self) -> None:
        """End everything, clients whose service has not begun too."""
        self._is_closed = True
        self.reset()
        clients = list(self._clients)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for client in clients:
            client.transport.abort()
        await asyncio.sleep(0)  # in which the transports close their sockets

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self.refusing:
            _reset(writer)
            return
        if self._refusals:
            try:
                await self._refuse(reader, writer)
            finally:
                writer.close()
            return
        try:
            upstream, server = await self._connect()
        except OSError:
            _reset(writer)
            return
        pair = (writer, server)
        self._pairs.add(pair)
        try:
            watch = Watch()
            await asyncio.gather(
                self._pump(reader, server, lambda chunk: self._look(watch, chunk)),
                self._pump(upstream, writer, lambda chunk: self._is_lost(watch, writer, chunk)),
            )
        finally:
            self._pairs.discard(pair)
            for one in pair:
                one.close()

    async def _refuse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            (length,) = struct.unpack("!i", await reader.readexactly(4))
            await reader.readexactly(length - 4)
            code = self._refusals[self.refused.total() % len(self._refusals)]
            self.refused[code] += 1
            fields = f"SFATAL\0VFATAL\0C{code}\0Mlogin refused with {code}\0\0".encode()
            writer.write(b"E" + struct.pack("!i", len(fields) + 4) + fields)
            await writer.drain()

    async def _connect(self) -> Stream:
        if (host := self._query.get("host", "")).startswith("/"):
            return await asyncio.open_unix_connection(
                f"{host}/.s.PGSQL.{self._query.get('port', '5432')}"
            )
        return await asyncio.open_connection(self._parts.hostname, self._parts.port or 5432)

    def _look(self, watch: Watch, chunk: bytes) -> bool:
        """Notice when the client has a statement done whose answer is to be lost."""
        watch.names |= set(re.findall(_PARSE % re.escape(self._losing), chunk, re.DOTALL))
        bound = set(re.findall(_BIND, chunk, re.DOTALL))
        if self._to_lose and self._losing and watch.names & bound:
            self._to_lose -= 1
            watch.is_awaited = True
        return False

    def _is_lost(self, watch: Watch, client: asyncio.StreamWriter, chunk: bytes) -> bool:
        watch.is_marked |= bool(self._mark) and self._mark in chunk
        is_over = watch.is_awaited or (watch.is_marked and _READY in chunk)
        if is_over:
            self.lost += 1
            watch.is_awaited = watch.is_marked = False
            _reset(client)
        return is_over or watch.is_marked

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        loses: Callable[[bytes], bool],
    ) -> None:
        flows = self._flows
        with suppress(OSError, RuntimeError):  # half-closed: it refuses to write any more
            while chunk := await reader.read(CHUNK):
                await asyncio.sleep(self.delay)
                self.swallowed += not flows.is_set()
                await flows.wait()
                if loses(chunk):
                    continue
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
