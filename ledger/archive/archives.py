"""The archive as a program reaches it: `ledger.archive`. Months are of the whole database."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

from runfold.ledger.archive import attach, detach, export, holds, obstacles, record, status
from runfold.ledger.archive.obstacles import Plan
from runfold.ledger.archive.record import Archive
from runfold.ledger.archive.status import MonthStatus
from runfold.ledger.postgres.connections import Pool


class Archives:
    """The archived months of a database; a month is named as 2026-01.

    Each change needs the owner of the schema and goes on record with its actor and reason.
    """

    def __init__(self, pool: Pool, actor: str) -> None:
        self._pool, self._actor = pool, actor

    async def months(self) -> list[MonthStatus]:
        """Return every month that has a partition or a file, oldest first."""
        return await status.months(self._pool)

    async def plan(self, month: str, *, detach: bool = False) -> Plan:
        """Return what an export, or with `detach` a detach, would meet. Raises InvalidValue."""
        return await obstacles.plan(self._pool, month, detach=detach)

    async def export(
        self, month: str, folder: Path, *, actor: str | None = None, reason: str | None = None
    ) -> Archive:
        """Write a month to a file in `folder` and check it; the month stays in the database.

        Raises ArchiveRefused, ArchiveUnusable, InvalidValue or AccessDenied.
        """
        who = self._who(actor)
        return await export.export(self._pool, month, folder, actor=who, reason=reason)

    async def detach(
        self, month: str, *, actor: str | None = None, reason: str | None = None
    ) -> Archive:
        """Take an exported month out of the database. Raises as `export`."""
        return await detach.detach(self._pool, month, actor=self._who(actor), reason=reason)

    async def attach(
        self, month: str, *, actor: str | None = None, reason: str | None = None
    ) -> Archive:
        """Bring a detached month back from its file. Raises as `export`."""
        return await attach.attach(self._pool, month, actor=self._who(actor), reason=reason)

    async def hold(
        self, target: str | tuple[str, UUID], *, reason: str, actor: str | None = None
    ) -> None:
        """Forbid to export or detach a month, or the month of a run (project and id).

        Raises InvalidValue or RunNotFound.
        """
        await holds.hold(self._pool, target, actor=self._who(actor), reason=reason)

    async def release(
        self, target: str | tuple[str, UUID], *, reason: str, actor: str | None = None
    ) -> None:
        """Release a hold. Raises as `hold`, and ArchiveRefused when there is none."""
        who = self._who(actor)
        await holds.hold(self._pool, target, actor=who, reason=reason, placed=False)

    async def history(self, month: str | None = None) -> list[Mapping[str, Any]]:
        """Return what was done with a month, or with all, oldest first. Raises InvalidValue."""
        return await record.history(self._pool, month)

    def _who(self, actor: str | None) -> str:
        return self._actor if actor is None else actor
