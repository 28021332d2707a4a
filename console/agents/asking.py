"""Who asks: an agent with the rights of an API token, or of the login to read and no more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from runfold.console.shared.token_ledger import token_ledger, use_token
from runfold.ledger import Ledger, access
from runfold.ledger.access import SECRET_PREFIX, Right
from runfold.ledger.errors import AccessDenied


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
            credential = await use_token(own, secret)
        if credential is None:
            raise AccessDenied("RUNFOLD_TOKEN is no API token, or one that is revoked or ended")
        return cls(token_ledger(own, secret, credential, own.project_id), own, has_token=True)

    async def allowed(self, right: Right) -> Ledger:
        """Return the ledger, after a check of the right, which the owner's login does not do.

        Raises AccessDenied.
        """
        why = await access.check(self.ledger.project, right)
        if why is not None:
            raise AccessDenied(why)
        return self.ledger
