"""A ledger that acts with the rights of an API token or a web session, and no others."""

from __future__ import annotations

from typing import Final, cast

from runfold.ledger import Ledger
from runfold.ledger.postgres.connections import Pool, fetch
from runfold.ledger.postgres.presenting import Presenting

_USE: Final = "SELECT ledger.use_token($1) AS credential"


async def use_token(own: Ledger, secret: str) -> str | None:
    """Return the credential of a secret, and record its use; None if the secret is not valid."""
    [row] = await fetch(own.pool, _USE, secret)
    return None if row["credential"] is None else str(row["credential"])


def token_ledger(own: Ledger, secret: str, credential: str, project: str) -> Ledger:
    """Return the ledger of a project that presents the secret with each statement.

    `own`: the ledger of the process's own login, whose connections are used.
    """
    # The operations use of a pool only what `fetch` uses.
    pool = cast("Pool", Presenting(own.pool, secret, project))
    settings = own.settings.model_copy(update={"actor": None})
    return Ledger(pool, project, settings, speaker=credential)
