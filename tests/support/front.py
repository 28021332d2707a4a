"""A front of a PostgreSQL server that asks for TLS or a password, as managed services do.

The server behind it needs neither: the one that the tests bring along is built without TLS. It
lives in threads, so that a program that blocks can be its client.
"""

from __future__ import annotations

import select
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

CANCEL, TLS, GSS = 80877102, 80877103, 80877104
"""What a client may send before its start-up packet; any other number is the protocol's."""
CHUNK = 65_536


class Front:
    """Accepts clients on a port of 127.0.0.1 and passes them on when they have done as asked."""

    def __init__(self, url: str, *, tls: ssl.SSLContext | None, password: str | None) -> None:
        self._parts = urlsplit(url)
        self._query = {name: values[0] for name, values in parse_qs(self._parts.query).items()}
        self._tls, self._password = tls, password
        self.database = self._parts.path.removeprefix("/")
        self.encrypted = 0
        """Connections that came over TLS."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        """End every connection."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._listener.close()
        for each in list(self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=(client,))
                self._threads.append(thread)
                self._open.add(client)
                thread.start()

    def _serve(self, plain: socket.socket) -> None:
        client = plain
        try:
            with suppress(OSError, EOFError):
                client, packet = self._opened(plain)
                with self._upstream() as upstream:
                    self._open.add(upstream)
                    upstream.sendall(packet)
                    _pump(client, upstream)
                    self._open.discard(upstream)
        finally:
            self._open.discard(plain)
            client.close()
            plain.close()

    def _opened(self, client: socket.socket) -> tuple[socket.socket, bytes]:
        """Return the client's connection, over TLS if it asked, and its start-up packet."""
        size, code = struct.unpack("!II", _read(client, 8))
        while code in {TLS, GSS}:
            if code == TLS and self._tls is not None:
                client.sendall(b"S")
                client = self._tls.wrap_socket(client, server_side=True)
                self._open.add(client)
                self.encrypted += 1
            else:
                client.sendall(b"N")
            size, code = struct.unpack("!II", _read(client, 8))
        packet = struct.pack("!II", size, code) + _read(client, size - 8)
        if code != CANCEL:
            self._check(client)
        return client, packet

    def _check(self, client: socket.socket) -> None:
        """Refuse a client as the server of a managed service does."""
        if self._tls is not None and not isinstance(client, ssl.SSLSocket):
            _refuse(client, "28000", "no entry for this host, no encryption")
        if self._password is not None:
            client.sendall(b"R" + struct.pack("!II", 8, 3))  # in clear text
            _, size = struct.unpack("!cI", _read(client, 5))
            if _read(client, size - 4) != self._password.encode() + b"\0":
                _refuse(client, "28P01", "password authentication failed")

    def _upstream(self) -> socket.socket:
        if (folder := self._query.get("host")) is None:
            return socket.create_connection((self._parts.hostname, self._parts.port or 5432))
        upstream = socket.socket(socket.AF_UNIX)
        upstream.connect(f"{folder}/.s.PGSQL.{self._query.get('port', '5432')}")
        return upstream


@contextmanager
def front(
    url: str, *, tls: ssl.SSLContext | None = None, password: str | None = None
) -> Iterator[Front]:
    """Run a front of the server."""
    made = Front(url, tls=tls, password=password)
    try:
        yield made
    finally:
        made.close()


def certificate(folder: Path, host: str) -> tuple[Path, Path]:
    """Make a certificate for a host that signs itself; return it and its key."""
    made, key = folder / "server.crt", folder / "server.key"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
            "-nodes", "-days", "2", "-keyout", str(key), "-out", str(made), "-subj", f"/CN={host}",
            "-addext", f"subjectAltName=DNS:{host}",
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return made, key


def server_context(made: Path, key: Path) -> ssl.SSLContext:
    """Return the TLS of a server with this certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made, key)
    return context


def _read(source: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        if not (chunk := source.recv(size - len(data))):
            raise EOFError
        data += chunk
    return data


def _pump(client: socket.socket, upstream: socket.socket) -> None:
    """Pass bytes both ways until one side has ended."""
    while True:
        buffered = isinstance(client, ssl.SSLSocket) and client.pending()
        ready = [client] if buffered else select.select([client, upstream], [], [])[0]
        for source in ready:
            if not (data := source.recv(CHUNK)):
                return
            (upstream if source is client else client).sendall(data)


def _refuse(client: socket.socket, sqlstate: str, message: str) -> None:
    fields = {"S": "FATAL", "V": "FATAL", "C": sqlstate, "M": message}
    body = b"".join(f"{name}{value}\0".encode() for name, value in fields.items()) + b"\0"
    client.sendall(b"E" + struct.pack("!I", len(body) + 4) + body)
    raise EOFError
