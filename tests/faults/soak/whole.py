"""One soak, from an empty database to its verdict."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from runfold.ledger import Ledger
from runfold.ledger.postgres import schema
from runfold.ledger.postgres.embedded.postgres import EmbeddedPostgres
from tests.faults.soak.soaking import Soak
from tests.faults.soak.surroundings import Surroundings
from tests.support.databases import PROJECT
from tests.support.proxy import proxied


async def soak(
    url: str, seed: int, moves: int, minutes: float = 0, server: EmbeddedPostgres | None = None
) -> str:
    """Soak the project `test` of a database that has no runs; return what happened, in one line.

    `server`: the one to restart; None where it belongs to others too.
    """
    await schema.upgrade(url)
    os.environ["RUNFOLD_POOL_SIZE"] = "1"  # one connection here, which is spared
    try:
        with tempfile.TemporaryDirectory(prefix="runfold-soak-", dir="/tmp") as folder:
            async with (
                Ledger.open(url, PROJECT, create_project=True) as ledger,
                proxied(url) as proxy,
            ):
                surroundings = Surroundings(ledger, url, Path(folder), server)
                await surroundings.prepare()
                soaking = Soak(ledger, url, proxy, surroundings, seed)
                types = await soaking.run(moves, 60 * minutes)
    finally:
        del os.environ["RUNFOLD_POOL_SIZE"]
    return f"{len(soaking.submitted)} runs; moves: {dict(soaking.made)}; events: {dict(types)}"
