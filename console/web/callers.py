"""Who calls: the API token of a request, and the ledger that acts with its rights and no others."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Annotated, Any, Final, cast

from fastapi import Depends, Header, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from runfold.console.web.options import Options
from runfold.ledger import Ledger
from runfold.ledger.access import SECRET_PREFIX
from runfold.ledger.errors import LedgerError, UnknownProject
from runfold.ledger.postgres.connections import Pool, fetch
from runfold.ledger.postgres.presenting import Presenting
from runfold.ledger.validation import check_text

MAX_LEDGERS: Final = 1_000
"""How many pairs of a token and a project are remembered."""
MAX_SECRET: Final = 200
_USE: Final = "SELECT ledger.use_token($1) AS credential"
_CHECK: Final = "SELECT ledger.check_my_access($1, $2, NULL)"
_EXISTS: Final = "SELECT FROM ledger.project WHERE project_id = $1"


class Unauthenticated(LedgerError):
    """The request has no API token, or one that is unknown, revoked or past its end."""

    def __init__(self, why: str) -> None:
        super().__init__(f"{why}: send `Authorization: Bearer SECRET`, the secret of an API token")


class Callers:
    """Finds the ledger of a request's project that acts with the rights of its token.

    One ledger for each pair: what one caller asks is never sent in a statement with another's.
    """

    def __init__(self, own: Ledger, options: Options) -> None:
        """`own` is the ledger of the server's login."""
        self.own, self.options = own, options
        self._ledgers: OrderedDict[tuple[bytes, str], Ledger] = OrderedDict()

    async def ledger(self, secret: str | None, project: str | None) -> Ledger:
        """Return the ledger of a project for the bearer of a secret.

        Without a secret: of the server's login, where the server is open. Raises Unauthenticated or
        UnknownProject.
        """
        named = self.own.project_id if project is None else check_text("project", project)
        if secret is None and not self.options.open:
            raise Unauthenticated("this server asks for an API token")
        credential = None if secret is None else await self._credential(secret)
        pair = (sha256((secret or "").encode()).digest(), named)
        if (known := self._ledgers.get(pair)) is None:
            known = await self._made(secret, credential, named)
            self._ledgers[pair] = known
        self._ledgers.move_to_end(pair)
        if len(self._ledgers) > MAX_LEDGERS:
            self._ledgers.popitem(last=False)
        return known

    async def _credential(self, secret: str) -> str:
        if not secret.startswith(SECRET_PREFIX) or len(secret) > MAX_SECRET:
            raise Unauthenticated("this is no API token of Runfold")
        [row] = await fetch(self.own.pool, _USE, secret)
        if row["credential"] is None:
            raise Unauthenticated("the API token is unknown, revoked or past its end")
        return str(row["credential"])

    async def _made(self, secret: str | None, credential: str | None, project: str) -> Ledger:
        own = self.own
        if secret is None:
            if project == own.project_id:
                return own
            if not await fetch(own.pool, _EXISTS, project):
                raise UnknownProject(project)
            return Ledger(own.pool, project, own.settings, own.url, own.project.speaker)
        # The operations ask of a pool only what `fetch` takes.
        pool = cast("Pool", Presenting(own.pool, secret))
        settings = own.settings.model_copy(update={"actor": None})
        return Ledger(pool, project, settings, speaker=credential)


Project = Annotated[
    str | None,
    Header(alias="Runfold-Project", description="The project; else the server's own."),
]
_bearer = HTTPBearer(auto_error=False, description="The secret of an API token.")


async def caller(
    request: Request,
    project: Project = None,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)] = None,
) -> Ledger:
    """Return the ledger that acts for the caller; the database checks what it does."""
    callers: Callers = request.app.state.callers
    if bearer is None and "authorization" in request.headers:
        raise Unauthenticated("this server knows no other scheme than Bearer")
    return await callers.ledger(bearer.credentials if bearer else None, project)


def holding(right: str) -> Callable[..., Awaitable[Ledger]]:
    """Return a dependency: the caller's ledger, if the caller has the right in the project.

    For what is read: row level security does not bind a server that connects as the schema's owner.
    """

    async def check(ledger: Annotated[Ledger, Depends(caller)]) -> Ledger:
        await fetch(ledger.pool, _CHECK, ledger.project_id, right)
        return ledger

    return check


Caller = Annotated[Ledger, Depends(caller)]
Reader = Annotated[Ledger, Depends(holding("read"))]
Shown = dict[str, Any]
