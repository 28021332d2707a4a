"""The agent that asks: with the rights of an API token, or with the login's, to read only."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final, Self
from uuid import UUID

from runfold.console.shared.token_ledger import token_ledger, use_token
from runfold.ledger import Ledger, access, payload_reads
from runfold.ledger.access import Right
from runfold.ledger.api_tokens import SECRET_PREFIX
from runfold.ledger.errors import AccessDenied
from runfold.ledger.validation import check_run_id


@dataclass(frozen=True, slots=True)
class Asking:
    """The ledger that acts for an agent, and the login's own, for reads that need a snapshot."""

    ledger: Ledger
    own: Ledger
    has_token: bool

    @classmethod
    async def begin(cls, own: Ledger, secret: str | None) -> Self:
        """Return the agent with the secret of an API token; without one, it reads as the login.

        Raises AccessDenied unless a valid token has the secret.
        """
        if secret is None:
            return cls(own, own, has_token=False)
        credential = None
        if secret.startswith(SECRET_PREFIX) and secret.isprintable():
            credential = await use_token(own, secret)
        if credential is None:
            raise AccessDenied(
                "RUNFOLD_TOKEN is not an API token, or its token is revoked or has ended",
                AccessDenied.TOKENS,
            )
        return cls(token_ledger(own, secret, credential, own.project_id), own, has_token=True)

    async def allowed(self, right: Right) -> Ledger:
        """Return the ledger after a check of the right; no other check holds for the owner's login.

        Raises AccessDenied or UnknownProject.
        """
        await access.require(self.ledger.project, right)
        return self.ledger

    async def opened(self, run_id: str, tool: str) -> Ledger:
        """Return the ledger to read a run's content with; a read by a token is put on record.

        Raises AccessDenied or InvalidValue.
        """
        ledger = await self.allowed("read")
        await self.note([check_run_id(run_id)], tool)
        return ledger

    async def note(self, run_ids: Sequence[UUID], tool: str) -> None:
        """Put on record the runs whose content a tool shows, if the agent has a token."""
        if self.has_token and run_ids:
            await payload_reads.note_reads(self.ledger.project, run_ids, f"mcp/{tool}")


ASKING: Final[ContextVar[Asking]] = ContextVar("runfold_asking")
"""The agent that asks in this context, where one server answers many agents."""


@dataclass(frozen=True, slots=True)
class CurrentAsking:
    """The agent that asks in the context of a call; the methods are those of Asking."""

    has_token: bool

    @property
    def own(self) -> Ledger:
        """The login's own ledger."""
        return ASKING.get().own

    async def allowed(self, right: Right) -> Ledger:
        """Return the ledger of the agent, after a check of the right."""
        return await ASKING.get().allowed(right)

    async def opened(self, run_id: str, tool: str) -> Ledger:
        """Return the ledger of the agent, to read a run's content with."""
        return await ASKING.get().opened(run_id, tool)

    async def note(self, run_ids: Sequence[UUID], tool: str) -> None:
        """Put on record the runs whose content a tool shows to the agent."""
        await ASKING.get().note(run_ids, tool)
