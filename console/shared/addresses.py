"""Addresses of this program's servers, as people open them."""

from __future__ import annotations

import socket
from typing import Final

CONSOLE_PORT: Final = 7700
"""Where the HTTP API and the pages are, unless told otherwise."""


def shown_address(host: str, listener: socket.socket) -> str:
    """Return the URL at which a socket listens, or the path of a Unix domain socket."""
    if listener.family == socket.AF_UNIX:
        return f"unix:{listener.getsockname()}"
    return f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
