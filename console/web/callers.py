"""The caller of a request: its API token, and the ledger that acts with the token's rights only."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated, Final

from fastapi import Depends, Header, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from runfold.console.shared.token_ledger import token_ledger, use_token
from runfold.console.web.options import Options
from runfold.console.web.problems import NOT_KNOWN, Unauthenticated, knows_no_token
from runfold.console.web.rates import Rates
from runfold.console.web.read_log import ReadLog
from runfold.ledger import Ledger
from runfold.ledger.access import EVERYWHERE
from runfold.ledger.api_tokens import SECRET_PREFIX
from runfold.ledger.errors import AccessDenied, UnknownProject
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.sessions import SESSION_PREFIX
from runfold.ledger.validation import check_text

MAX_LEDGERS: Final = 1_000
"""How many pairs of a token and a project are remembered."""
MAX_SECRET: Final = 200
USED_SECONDS: Final = 60.0
"""How often the use of a token is recorded."""
_CHECK: Final = "SELECT ledger.check_my_access($1, $2, NULL)"


@dataclass(slots=True)
class _Known:
    """A caller's ledger, and when the use of the caller's token was last recorded."""

    ledger: Ledger
    used_at: float


class Callers:
    """Finds the ledger of a request's project that acts with the rights of the request's token.

    Each pair of a token and a project has its own, so no statement has the calls of two callers.
    """

    def __init__(self, own: Ledger, options: Options) -> None:
        """`own` is the ledger of the server's login."""
        self.own, self.options = own, options
        self.rates = Rates(options.requests_a_second, 2 * options.requests_a_second)
        self.tries = Rates(1 / 6, 10)
        """Tries of one user's password from one address: ten at once, then ten a minute."""
        self.reads = ReadLog()
        self._strangers = Rates(options.strangers_a_second, 2 * options.strangers_a_second)
        self._known: OrderedDict[tuple[bytes, str], _Known] = OrderedDict()

    async def ledger(
        self,
        secret: str | None,
        project: str | None,
        rights: Sequence[str],
        client: str,
        *,
        beat: bool = False,
    ) -> Ledger:
        """Return the ledger of a project for the bearer of a secret, who has one of the rights.

        Without a secret, return that of the server's login, if the server is open. A `beat` has a
        rate of its own, so that a caller loses no lease by too many other requests. Raises
        Unauthenticated, UnknownProject, AccessDenied or TooManyRequests.
        """
        named = self.own.project_id if project is None else check_text("project", project)
        if secret is None and not self.options.open:
            raise Unauthenticated("this server asks for an API token")
        pair = (sha256((secret or "").encode()).digest(), named)
        if pair in self._known or secret is None:
            self.rates.take((pair[0], beat))
        else:
            self._strangers.take(client)
        known = await self._looked_up(pair, secret, named)
        try:
            await _check(known.ledger, rights)
        except AccessDenied as error:
            if secret is None or not knows_no_token(error):
                raise
            self._known.pop(pair, None)
            await use_token(self.own, secret)  # counts the use of a revoked token
            raise Unauthenticated(NOT_KNOWN) from error
        self._known[pair] = known
        self._known.move_to_end(pair)
        if len(self._known) > MAX_LEDGERS:
            self._known.popitem(last=False)
        return known.ledger

    def count_stranger(self, client: str) -> None:
        """Count a request of an address whose caller is not yet known. Raises TooManyRequests."""
        self._strangers.take(client)

    async def _looked_up(self, pair: tuple[bytes, str], secret: str | None, project: str) -> _Known:
        known = self._known.get(pair)
        if secret is None:
            is_own = project in {self.own.project_id, EVERYWHERE}
            return known or _Known(self.own if is_own else self.of_server(project), 0)
        if known is None:
            credential = await self._credential(secret)
            return _Known(token_ledger(self.own, secret, credential, project), time.monotonic())
        if time.monotonic() - known.used_at > USED_SECONDS:
            known.used_at = time.monotonic()
            await self._credential(secret)
        return known

    async def _credential(self, secret: str) -> str:
        if not secret.startswith(SECRET_PREFIX) or len(secret) > MAX_SECRET:
            raise Unauthenticated("this is not an API token of Runfold")
        check_text("token", secret)
        credential = await use_token(self.own, secret)
        if credential is None:
            raise Unauthenticated(NOT_KNOWN)
        return credential

    def of_server(self, project: str) -> Ledger:
        """Return the ledger of a project with the server's own login; check the caller first."""
        own = self.own
        return Ledger(own.pool, project, own.settings, own.url, own.project.speaker)


def named_project(project: str | None) -> str | None:
    """Return the project that a request names. Raises UnknownProject for all projects together."""
    if project == EVERYWHERE:
        raise UnknownProject(project)
    return project


async def _check(ledger: Ledger, rights: Sequence[str]) -> None:
    """Raise AccessDenied or UnknownProject unless the caller has one of the rights.

    The SQL functions check each write again. A read is checked here alone if the server connects
    as the schema's owner, because row level security does not apply to the owner.
    """
    *others, last = rights
    for right in others:
        try:
            await fetch(ledger.pool, _CHECK, ledger.project_id, right)
        except AccessDenied as error:
            if knows_no_token(error):
                raise
        else:
            return
    await fetch(ledger.pool, _CHECK, ledger.project_id, last)


Project = Annotated[
    str | None,
    Header(alias="Runfold-Project", description="The project; else the server's own."),
]
_bearer = HTTPBearer(auto_error=False, description="The secret of an API token.")


def caller(
    *rights: str, beat: bool = False, everywhere: bool = False
) -> Callable[..., Awaitable[Ledger]]:
    """Return a dependency: the ledger that acts for a caller who has one of the rights."""

    async def find(
        request: Request,
        project: Project = None,
        bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)] = None,
    ) -> Ledger:
        callers: Callers = request.app.state.callers
        if bearer is None and "authorization" in request.headers:
            raise Unauthenticated("the request's Authorization is not Bearer, or has no secret")
        if bearer is not None and bearer.credentials.startswith(SESSION_PREFIX):
            raise Unauthenticated("a session of the pages is not an API token")
        chosen = EVERYWHERE if everywhere else named_project(project)
        client = request.client.host if request.client else ""
        secret = bearer.credentials if bearer else None
        ledger = await callers.ledger(secret, chosen, rights, client, beat=beat)
        await callers.reads.note(request, ledger)
        return ledger

    return find


Reader = Annotated[Ledger, Depends(caller("read"))]
Submitter = Annotated[Ledger, Depends(caller("submit"))]
Worker = Annotated[Ledger, Depends(caller("work"))]
Decider = Annotated[Ledger, Depends(caller("decide"))]
Scheduler = Annotated[Ledger, Depends(caller("schedule"))]
Admin = Annotated[Ledger, Depends(caller("admin"))]
Auditor = Annotated[Ledger, Depends(caller("audit"))]
