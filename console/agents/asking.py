"""Who asks: an agent with the rights of an API token, or of the login to read and no more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self, cast

from runfold.ledger import Ledger, access
from runfold.ledger.access import SECRET_PREFIX, Right
from runfold.ledger.errors import AccessDenied
from runfold.ledger.postgres.connections import Pool, fetch
from runfold.ledger.postgres.presenting import Presenting

_USE = "SELECT ledger.use_token($1) AS credential"


@dataclass(frozen=True, slots=True)
class Asking:
    """The ledger that acts for an agent, and the login's own, for what takes a snapshot."""

    ledger: Ledger
    own: Ledger
    has_token: bool

    @classmethod
    async def begin(cls, own: Ledger, secret: str | None) -> Self:
        """Return who asks with this secret of an API token; None: the login, to read only.

        Raises AccessDenied for a secret that is none, or no longer.
        """
        if secret is None:
            return cls(own, own, has_token=False)
        credential = None
        if secret.startswith(SECRET_PREFIX) and secret.isprintable():
            [row] = await fetch(own.pool, _USE, secret)
            credential = row["credential"]
        if credential is None:
            raise AccessDenied("RUNFOLD_TOKEN is no API token, or one that is revoked or ended")
        # The operations ask of a pool only what `fetch` takes.
        pool = cast("Pool", Presenting(own.pool, secret))
        settings = own.settings.model_copy(update={"actor": None})
        under = Ledger(pool, own.project_id, settings, speaker=str(credential))
        return cls(under, own, has_token=True)

    async def allowed(self, right: Right) -> Ledger:
        """Return the ledger, after a check of the right, which the owner's login does not do.

        Raises AccessDenied.
        """
        why = await access.check(self.ledger.project, right)
        if why is not None:
            raise AccessDenied(why)
        return self.ledger
