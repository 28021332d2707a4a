"""Connecting to the first of several servers that answers as asked, each in a time of its own.

The driver has one time for all of them: a server that is silent, as a machine without power is,
would use it up, and the one that took over would never be asked. libpq has a time for each.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any, Final

import asyncpg

SILENT_SECONDS: Final = 60.0
"""How long a host that did not answer in time is asked after all others."""
_NEXT: Final = (
    OSError,  # TimeoutError is one
    asyncpg.CannotConnectNowError,
    asyncpg.ConnectionDoesNotExistError,
    asyncpg.TargetServerAttributeNotMatched,
)
"""What leads to the next host. Any other error, such as a wrong password, is the answer."""

_silent: dict[tuple[str, int], float] = {}
"""Until when a host counts as silent."""


async def connect_to_any(
    dsn: str | None = None,
    *,
    host: list[str] | None,
    port: list[int] | None,
    target_session_attrs: str | None = None,
    **arguments: Any,  # of the driver, which has names and types for them
) -> asyncpg.Connection[Any]:
    """Connect as `asyncpg.connect` does, with its `timeout` for each host."""
    connect: Any = partial(asyncpg.connect, dsn, **arguments)
    opened: asyncpg.Connection[Any]
    places = list(zip(host or (), port or (), strict=False))
    if not places:  # the environment names one
        opened = await connect(host=host, port=port, target_session_attrs=target_session_attrs)
        return opened
    is_flexible = target_session_attrs == "prefer-standby"
    failure: Exception | None = None
    for wanted in ("standby", "any") if is_flexible else (target_session_attrs,):
        for place in sorted(places, key=_is_silent):
            name, number = place
            try:
                opened = await connect(host=[name], port=[number], target_session_attrs=wanted)
            except _NEXT as error:
                failure = error
                if isinstance(error, TimeoutError):
                    _silent[place] = time.monotonic() + SILENT_SECONDS
            else:
                return opened
    if isinstance(failure, asyncpg.TargetServerAttributeNotMatched):
        asked = f"no server of the URL is as target_session_attrs={target_session_attrs} asks"
        raise asyncpg.TargetServerAttributeNotMatched(asked) from failure
    assert failure is not None
    raise failure


def _is_silent(place: tuple[str, int]) -> bool:
    return _silent.get(place, 0.0) > time.monotonic()
