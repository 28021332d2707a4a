"""Names for who does something when the caller gives none."""

from __future__ import annotations

import getpass
import secrets
import socket


def default_worker_id() -> str:
    """Name this worker: its host and eight hex digits of its own, so that two on one host differ."""
    return f"{socket.gethostname()[:180] or 'host'}:{secrets.token_hex(4)}"


def default_actor() -> str:
    """Name the person at the keyboard by the login name."""
    try:
        return getpass.getuser() or "unknown"
    except (KeyError, OSError):  # an account number without a name, as in many containers
        return "unknown"
