"""The feed: every event once, each run's in order, under any number of concurrent commits.

A checkpoint is a moment: a snapshot of which transactions were visible. The next events are those
that are visible now and were not then, by position (`ledger/sql/feed/feed_next.sql`,
`feed_page.sql`). Positions alone would lose events, because a transaction with lower positions may
commit later; a snapshot loses none, and waits for nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any, Final, Self

from runfold.ledger.errors import CheckpointUnknown, InvalidValue
from runfold.ledger.events import Event, from_row
from runfold.ledger.postgres.connections import Connection, Pool, fetch
from runfold.ledger.validation import MAX_INT

PAGE: Final = "ledger.feed_page($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
"""A page of events, as a relation: of a checkpoint with a target, a limit and filters."""

_NEXT: Final = "SELECT * FROM ledger.feed_next($1, $2, $3)"
_NOW: Final = "SELECT * FROM ledger.feed_now()"
_EVENTS: Final = f"""
SELECT event.*, payload.body FROM {PAGE} AS event
LEFT JOIN LATERAL (
  SELECT payload.body FROM ledger.payload AS payload
  WHERE payload.project_id = event.project_id AND payload.run_id = event.run_id
    AND payload.version = event.version OFFSET 0
) AS payload ON true
ORDER BY event.position
"""
_NO_FACTS: Final = frozenset({"txid", "salt", "body"})
_MAX_BIGINT: Final = 2**63 - 1
_NUMBER = "[0-9]{1,19}"
_MOMENT = rf"{_NUMBER}:{_NUMBER}:(?:{_NUMBER}(?:,{_NUMBER})*)?@{_NUMBER}(?:@[0-9a-f]{{16}})?"
_CHECKPOINT: Final = re.compile(rf"({_NUMBER})/({_MOMENT})/({_MOMENT})?/({_NUMBER})")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How far a reader has come: past `moment`, and towards `target` up to `position`."""

    generation: int = 1
    moment: str = "1:1:@0"
    target: str | None = None
    position: int = 0

    def __str__(self) -> str:
        """Return the checkpoint as text, to be stored and read again."""
        return f"{self.generation}/{self.moment}/{self.target or ''}/{self.position}"

    @property
    def seen_position(self) -> int:
        """The position up to which the reader has come."""
        return self.position if self.target else int(self.moment.split("@")[1])

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a checkpoint that was written as text; raise InvalidValue for any other text."""
        match = _CHECKPOINT.fullmatch(text)
        if match is None or not _is_possible(*match.groups()):
            raise InvalidValue(
                "checkpoint", text, "is not one: pass what an earlier subscription returned"
            )
        return cls(int(match[1]), match[2], match[3], int(match[4]))

    @classmethod
    def kept(cls, text: str) -> Self:
        """Read a checkpoint that a table keeps; raise CheckpointUnknown for a damaged one."""
        try:
            return cls.parse(text)
        except InvalidValue as error:
            raise CheckpointUnknown(text) from error

    def after(self, rows: Sequence[Mapping[str, Any]], limit: int) -> Checkpoint:
        """Return the checkpoint after a page that was asked for with this limit."""
        return self.moved(rows[-1]["position"]) if len(rows) >= limit else self.arrived()

    def moved(self, position: int) -> Checkpoint:
        """Return the checkpoint further on the way to the target."""
        return replace(self, position=position)

    def arrived(self) -> Checkpoint:
        """Return the checkpoint at the target."""
        assert self.target is not None
        return Checkpoint(self.generation, self.target)


def _is_possible(generation: str, moment: str, target: str | None, position: str) -> bool:
    """Whether the numbers of a checkpoint fit their types, and its snapshots are such."""
    for each in (moment, target):
        snapshot, _, place = (each or moment).partition("@")
        least, beyond, open_ = snapshot.split(":")
        between = [int(id_) for id_ in open_.split(",") if id_]
        ids = [1, int(least), *between, int(beyond) - bool(between), _MAX_BIGINT]
        if ids != sorted(ids) or int(place.partition("@")[0]) > _MAX_BIGINT:
            return False
    return int(generation) <= MAX_INT and int(position) <= _MAX_BIGINT


@dataclass(frozen=True, slots=True)
class Filter:
    """Which events to read; None everywhere means all."""

    project_id: str | None = None
    types: Sequence[str] | None = None
    without: Sequence[str] | None = None
    kinds: Sequence[str] | None = None
    states: Sequence[str] | None = None


async def now(source: Pool | Connection) -> Checkpoint:
    """Return the checkpoint of this moment: what is visible now will not be read.

    Raises FeedMoved or FeedOnStandby.
    """
    [row] = await fetch(source, _NOW)
    return Checkpoint(row["generation"], row["moment"])


async def towards(
    source: Pool | Connection, checkpoint: Checkpoint, limit: int
) -> Checkpoint | None:
    """Return the checkpoint with a target at most `limit` events away; None if nothing is new.

    The target is further away only where one transaction has more events.

    Raises FeedMoved, FeedOnStandby, FeedArchived or CheckpointUnknown.
    """
    if checkpoint.target is not None:
        return checkpoint
    rows = await fetch(source, _NEXT, checkpoint.generation, checkpoint.moment, limit - 1)
    return Checkpoint(*rows[0].values()) if rows else None


async def read(
    source: Pool | Connection, checkpoint: Checkpoint, limit: int, which: Filter
) -> tuple[list[Event], Checkpoint]:
    """Return at most `limit` events towards the checkpoint's target, and the checkpoint after."""
    rows = await fetch(source, _EVENTS, *page_arguments(checkpoint, limit, which))
    return [as_event(row) for row in rows], checkpoint.after(rows, limit)


def page_arguments(checkpoint: Checkpoint, limit: int, which: Filter) -> tuple[Any, ...]:
    """Return the parameters of `PAGE`."""
    return (
        checkpoint.generation,
        checkpoint.moment,
        checkpoint.target,
        checkpoint.position,
        limit,
        *astuple(which),
    )


def as_event(row: Mapping[str, Any]) -> Event:
    """Build the event of a row of table `event` with its payload's body."""
    return from_row(
        {name: fact for name, fact in row.items() if fact is not None and name not in _NO_FACTS},
        row["body"],
    )
