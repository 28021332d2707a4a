"""The server of the application: where it listens, and how it ends."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from runfold.ledger.errors import ConfigurationError

GRACE_SECONDS: Final = 10
"""How long requests in progress may take once the server is told to end."""
MAX_CONNECTIONS: Final = 2_000
"""Connections and requests at a time; any more are answered 503."""
REQUEST_SECONDS: Final = 75
"""How long a connection may be without a whole head of a request.

Balancers and proxies keep an idle connection for 60 s: if the server ended it earlier, they would
send the next request into its end, and answer 502.
"""
READ_SECONDS: Final = 60.0
"""How long a client may leave what it is sent unread, once no more fits in between."""


class Connection(H11Protocol):
    """A connection that ends if its next request does not come in time, or its answer is not read.

    uvicorn waits for as long as the client likes: clients that send nothing, or half a request, or
    do not read, would hold all connections.
    """

    _late: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Wait for the first request."""
        super().connection_made(transport)
        self._await_request()

    def on_response_complete(self) -> None:
        """Wait for the next request, which may have come already."""
        self._await_request()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        super().connection_lost(exc)
        for timer in (self._late, self._unread):
            if timer is not None:
                timer.cancel()

    def pause_writing(self) -> None:
        """Wait for the client to read."""
        super().pause_writing()
        self._unread = self.loop.call_later(READ_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """Wait no longer for the client to read."""
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing: Java's client offers HTTP/2 in each request, and gets its answer without."""

    def _await_request(self) -> None:
        if self._late is not None:
            self._late.cancel()
        self._late = self.loop.call_later(REQUEST_SECONDS, self._end_without, self.cycle)

    def _end_without(self, last: object) -> None:
        """End the connection if no request has come since the last one."""
        if self.cycle is last:
            self.transport.abort()


class Server(uvicorn.Server):
    """A server that ends its event streams at shutdown: they never end by themselves."""

    def __init__(self, app: FastAPI) -> None:
        """Configure the server, which listens nowhere yet."""
        super().__init__(
            uvicorn.Config(
                app,
                http=Connection,
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=REQUEST_SECONDS,
                timeout_graceful_shutdown=GRACE_SECONDS,
                h11_max_incomplete_event_size=32_768,
                ws="none",
                limit_concurrency=MAX_CONNECTIONS,
            )
        )
        self.app = app

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """End the server on SIGTERM or Ctrl-C: gently on the first, at once on another."""
        loop = asyncio.get_running_loop()
        for each in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(each, self.end)
        try:
            yield
        finally:
            for each in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(each)

    def end(self) -> None:
        """Stop accepting connections, and end once requests in progress are answered.

        Event streams end at once, and at a second call everything does.
        """
        self.force_exit = self.should_exit
        self.should_exit = True
        self.app.state.ending.set()


def listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens on a host and port. Raises ConfigurationError."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(address[:2], family=family)
    except (OSError, OverflowError, ValueError) as error:
        raise ConfigurationError(
            f"cannot listen on {host}:{port} ({error}): give another --host or --port"
        ) from error
    # Each connection inherits it: asyncio sets it only where the socket names its protocol. Without
    # it, the body of an answer waits 40 ms until the client has confirmed the head.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener
