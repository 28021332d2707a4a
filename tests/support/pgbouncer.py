"""A real pgbouncer in transaction mode before the test server."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from tests.support.server_folder import open_folder

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
SERVER_CONNECTIONS = 3
"""Fewer than a worker has connections, so that every connection meets several of the server's."""


SETTINGS = """
[databases]
runs = host=db.example port=5432

[pgbouncer]
pool_mode = transaction
ignore_startup_parameters = extra_float_digits
"""


@contextmanager
def pooled(url: str, settings: str = SETTINGS) -> Iterator[str]:
    """Start one with these settings; yield the database's URL through it.

    What belongs to the place is replaced: addresses, the database and how clients are known.
    """
    parts = urlsplit(url)
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    host, port = query.get("host") or parts.hostname or "", query.get("port") or parts.port or 5432
    user, name = parts.username or "postgres", parts.path.removeprefix("/")
    password = f" password={parts.password}" if parts.password else ""
    with open_folder() as folder:
        with socket.create_server(("127.0.0.1", 0)) as free:
            listening = free.getsockname()[1]
        configuration = folder / "pgbouncer.ini"
        kept = [
            line
            for line in settings.splitlines()
            if not line.startswith(("listen_", "auth_", "max_client", "default_pool"))
        ]
        server = f"{name} = host={host} port={port} user={user}{password}"
        configuration.write_text(
            re.sub(r"^runs = .*$", server, "\n".join(kept), flags=re.MULTILINE)
            + f"""
listen_addr = 127.0.0.1
listen_port = {listening}
unix_socket_dir =
auth_type = any
max_client_conn = 200
default_pool_size = {SERVER_CONNECTIONS}
server_round_robin = 1
"""
        )
        assert PROGRAM is not None
        # It refuses to be root, and the server's socket may be closed to all but the server's own
        # account.
        account = Path(host).owner() if host.startswith("/") else "nobody"
        as_user = ["-u", account] if os.geteuid() == 0 else []
        with subprocess.Popen(
            [PROGRAM, *as_user, configuration], stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                _listens(process)
                yield f"postgresql://{user}@127.0.0.1:{listening}/{name}?sslmode=disable"
            finally:
                process.kill()


def _listens(process: subprocess.Popen[str]) -> None:
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if "process up" in line:
            return
    raise AssertionError(f"pgbouncer did not start:\n{said}")
