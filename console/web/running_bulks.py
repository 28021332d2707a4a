"""Bulks that were begun on a page: each runs by itself, and a page shows its progress.

A running bulk lives in this process. What it did is in the histories of its runs; a bulk that was
lost is begun again by the same form, and does nothing twice. No project waits for another: each has
a limit of its own, and its bulks take turns, one batch at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final
from uuid import UUID
from weakref import WeakValueDictionary

from runfold.console.shared.bulk import Bulk, Outcome, batch
from runfold.console.web.problems import reason_of
from runfold.console.web.rates import TooManyRequests
from runfold.ledger import Ledger
from runfold.ledger.errors import InvalidValue

REMEMBERED: Final = 25
"""The bulks of a project that are remembered; of the ended ones, the newest."""
REMEMBERED_OF_ALL: Final = 250
"""The same for all projects together: a server may have seen thousands."""
RUNNING: Final = 8
"""Bulks of a project that go on at a time."""
SHOWN: Final = 1_000
"""The outcomes that are kept; as many refusals are kept as well."""


@dataclass(slots=True)
class RunningBulk:
    """One bulk on its way."""

    key: str
    project_id: str
    bulk: Bulk
    reason: str
    actor: str
    begun_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    done: int = 0
    refused: int = 0
    outcomes: list[Outcome] = field(default_factory=list)
    refusals: list[Outcome] = field(default_factory=list)
    ended_at: datetime | None = None
    error: str | None = None
    is_aborted: bool = False
    task: asyncio.Task[None] | None = None


class RunningBulks:
    """The bulks of a server, by project and key."""

    def __init__(self) -> None:
        self._bulks: dict[tuple[str, str], RunningBulk] = {}
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """The locks of the projects with a running bulk, whose tasks hold them."""

    def begin(self, key: str, ledger: Ledger, bulk: Bulk, reason: str) -> RunningBulk:
        """Begin a bulk; one that has begun with this key is returned as it is.

        Raises TooManyRequests, or InvalidValue for the key of another bulk or of another person.
        """
        project_id = ledger.project_id
        begun = self._bulks.get((project_id, key))
        if begun is not None:
            if (begun.bulk, begun.reason, begun.actor) != (bulk, reason, ledger.actor):
                raise InvalidValue("key", key, "is that of another bulk: load the form again")
            return begun
        bulks = [each for each in self._bulks.values() if each.project_id == project_id]
        if sum(each.ended_at is None for each in bulks) >= RUNNING:
            raise TooManyRequests(5)
        running = RunningBulk(key, project_id, bulk, reason, ledger.actor)
        self._bulks[project_id, key] = running
        turn = self._turns.setdefault(project_id, asyncio.Lock())
        running.task = asyncio.create_task(_run(running, ledger, turn))
        self._forget([*bulks, running], REMEMBERED)
        self._forget(list(self._bulks.values()), REMEMBERED_OF_ALL)
        return running

    def _forget(self, bulks: Sequence[RunningBulk], most: int) -> None:
        """Forget the oldest of these that have ended, until `most` are left."""
        ended = [each for each in bulks if each.ended_at is not None]
        for old in ended[: max(len(bulks) - most, 0)]:
            del self._bulks[old.project_id, old.key]

    def find(self, project_id: str, key: str) -> RunningBulk | None:
        """Return a bulk of a project; None if this server does not know it."""
        return self._bulks.get((project_id, key))

    async def end(self) -> None:
        """Stop all bulks, each after its current batch."""
        going = [running for running in self._bulks.values() if running.ended_at is None]
        for running in going:
            running.is_aborted = True
        await asyncio.gather(
            *(running.task for running in going if running.task), return_exceptions=True
        )


async def _run(running: RunningBulk, ledger: Ledger, turn: asyncio.Lock) -> None:
    older: UUID | None = None
    try:
        while not running.is_aborted:
            async with turn:
                if running.is_aborted:
                    break
                done = await batch(
                    ledger, running.bulk, reason=running.reason, actor=running.actor, before=older
                )
            for outcome in done.outcomes:
                _keep(running, outcome)
            older = done.older
            if older is None:
                break
    except Exception as error:
        running.error = reason_of(error)
    finally:
        running.ended_at = datetime.now(UTC)


def _keep(running: RunningBulk, outcome: Outcome) -> None:
    running.done += outcome.is_done
    running.refused += not outcome.is_done
    kept = running.outcomes if outcome.is_done else running.refusals
    if len(kept) < SHOWN:
        kept.append(outcome)
