"""Whether a connection has a session of the server to itself, which a pooler gives to nobody."""

from __future__ import annotations

from typing import Any

from runfold.ledger.errors import ConfigurationError


async def check_own_session(connection: Any) -> None:
    """Raise ConfigurationError for a connection of a pooler.

    A lock or a setting of the session would stay with whoever is given its server connection next.
    A pooler names processes of its own to those who connect. See docs/decisions/0095.
    """
    if await connection.fetchval("SELECT pg_backend_pid()") != connection.get_server_pid():
        raise ConfigurationError(
            "this needs a session of the server to itself, and a pooler lies before the database: "
            "give the URL of the server"
        )
