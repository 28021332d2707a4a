"""Which database errors are about an event, so that trying it again changes nothing."""

from __future__ import annotations

from typing import Final

import asyncpg

_CLASSES: Final = frozenset({"21", "22", "23", "54", "P0", "RF"})
"""Cardinality, data, constraints, limits of size and depth, what functions and the ledger raise."""
_OF_THE_FEED: Final = "RF41"


def is_bad_data(error: asyncpg.PostgresError) -> bool:
    """Whether the error says something about the events, not about the server or the feed."""
    state = error.sqlstate or ""
    return state[:2] in _CLASSES and not state.startswith(_OF_THE_FEED)
