"""The ledger's clock."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from runfold.ledger.postgres.connections import Connection, Pool, fetch

_NOW: Final = "SELECT ledger.now() AS now"


async def ledger_now(source: Pool | Connection) -> datetime:
    """Return the ledger's time, which never runs back behind what is recorded."""
    [row] = await fetch(source, _NOW)
    moment: datetime = row["now"]
    return moment
