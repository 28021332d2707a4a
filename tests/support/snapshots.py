"""The snapshots that sessions hold: long ones keep vacuum from its work."""

from __future__ import annotations

from typing import Any, Final

import asyncpg

# Autovacuum has snapshots, too; and wake-ups go out on their own, some milliseconds after a write.
_HELD: Final = """
SELECT count(*) FROM pg_stat_activity WHERE backend_xmin IS NOT NULL AND pid <> pg_backend_pid()
  AND datname = current_database() AND backend_type = 'client backend'
  AND query NOT LIKE '%pg_notify%'
"""


async def held_snapshots(source: asyncpg.Connection[Any] | asyncpg.Pool[Any]) -> int:
    """Return how many other sessions of the database hold a snapshot now."""
    return int(await source.fetchval(_HELD))
