"""The relatives of a run: its parent, its children, and the runs before and after it as reruns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from runfold.console.shared.rerun import RERUN, rerun_of
from runfold.ledger import Ledger, Run
from runfold.ledger.errors import InvalidValue
from runfold.ledger.payload import decode_payload
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.validation import check_run_id

MOST: Final = 200
"""Children of a run that are listed, and runs in a tree."""
DEEPEST: Final = 4
"""Generations of a tree."""
CHAIN: Final = 20
"""Reruns before and after a run that are followed."""
_CALLS: Final = 50
"""Calls for children that are read of a run."""
_EVENTS: Final = 20_000
"""Events of a run among which its calls for children are looked for."""

# Lateral with OFFSET 0 and LIMIT, so that each run is looked up by its key whatever the planner
# thinks of their number.
_ASKED: Final = f"""
SELECT parent.run_id, event.key, payload.body::text AS body
FROM unnest($2::uuid[]) AS parent (run_id)
CROSS JOIN LATERAL (
  SELECT event.version, event.key FROM ledger.event AS event
  WHERE event.project_id = $1 AND event.run_id = parent.run_id AND event.version <= {_EVENTS}
    AND event.type = 'step.completed' AND starts_with(event.name, 'children:')
  ORDER BY event.version LIMIT {_CALLS}) AS event
CROSS JOIN LATERAL (
  SELECT payload.body FROM ledger.payload AS payload
  WHERE payload.project_id = $1 AND payload.run_id = parent.run_id
    AND payload.version = event.version OFFSET 0) AS payload
"""
_RELATIVES: Final = """
SELECT run.run_id, run.kind, run.state, run.attempt_count, run.max_attempts, run.created_at,
  run.updated_at, run.completed_at, run.cost_usd, run.error_code, run.key
FROM unnest($2::uuid[]) WITH ORDINALITY AS wanted (run_id, place) CROSS JOIN LATERAL (
  SELECT * FROM ledger.run_state AS run WHERE run.project_id = $1 AND run.run_id = wanted.run_id
  OFFSET 0) AS run
ORDER BY wanted.place
"""
_KEYED: Final = """
SELECT wanted.key, command.run_id FROM unnest($2::text[]) WITH ORDINALITY AS wanted (key, place)
CROSS JOIN LATERAL (SELECT command.run_id FROM ledger.command AS command
  WHERE command.project_id = $1 AND command.key = wanted.key OFFSET 0) AS command
ORDER BY wanted.place
"""
# A chain is followed within the database: each run costs a lookup there and no round trip. A key of
# a user's own may begin with the prefix and go on with no id.
_ID: Final = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_EARLIER: Final = f"""
WITH RECURSIVE chain (run_id, place) AS (
  SELECT $2::uuid, 0
  UNION ALL
  SELECT older.run_id, chain.place + 1 FROM chain CROSS JOIN LATERAL (
    SELECT substr(run.key, length($3) + 1)::uuid AS run_id FROM ledger.run_state AS run
    WHERE run.project_id = $1 AND run.run_id = chain.run_id AND run.key ~ ('^' || $3 || '{_ID}$')
    OFFSET 0) AS older
  WHERE chain.place < {CHAIN}
)
SELECT run_id FROM chain WHERE place > 0 ORDER BY place
"""
_LATER: Final = f"""
WITH RECURSIVE chain (run_id, place) AS (
  SELECT $2::uuid, 0
  UNION ALL
  SELECT newer.run_id, chain.place + 1 FROM chain CROSS JOIN LATERAL (
    SELECT command.run_id FROM ledger.command AS command
    WHERE command.project_id = $1 AND command.key = $3 || chain.run_id::text OFFSET 0) AS newer
  WHERE chain.place < {CHAIN}
)
SELECT run_id FROM chain WHERE place > 0 ORDER BY place
"""


@dataclass(slots=True)
class Relative:
    """A run as a list of relatives shows it; `more` children were asked for beyond these."""

    run_id: UUID
    kind: str
    state: str
    attempt_count: int
    max_attempts: int
    created_at: datetime
    updated_at: datetime
    completed_at: datetime | None
    cost_usd: Any
    error_code: str | None
    key: str | None
    depth: int = 0
    children: list[Relative] = field(default_factory=list)
    more: int = 0


@dataclass(frozen=True, slots=True)
class Relations:
    """The relatives of one run; `earlier` and `later` are its chain of reruns."""

    parent: Relative | None
    children: list[Relative]
    more: int
    earlier: list[Relative]
    later: list[Relative]

    @property
    def any(self) -> bool:
        """Whether there is any relative."""
        return bool(self.parent or self.children or self.earlier or self.later)


async def relations(ledger: Ledger, run: Run) -> Relations:
    """Return the relatives of a run, as far as its history and its key name them."""
    parent = await _parent(ledger, run)
    ids, more = (await _asked_for(ledger, [run.run_id], MOST)).get(run.run_id, ([], 0))
    return Relations(
        parent,
        await _read(ledger, ids),
        more,
        await _earlier(ledger, run),
        await _later(ledger, run),
    )


async def tree(ledger: Ledger, run: Run) -> Relative:
    """Return a run with its descendants: at most DEEPEST generations, and MOST runs in all."""
    [root] = await _read(ledger, [run.run_id])
    level, room = [root], MOST
    for depth in range(1, DEEPEST + 1):
        asked = await _asked_for(ledger, [each.run_id for each in level], room)
        shown: dict[UUID, list[UUID]] = {}
        for each in level:
            ids, more = asked.get(each.run_id, ([], 0))
            shown[each.run_id] = ids[:room]
            room -= len(shown[each.run_id])
            each.more = more + len(ids) - len(shown[each.run_id])
        runs = await _read(ledger, [run_id for ids in shown.values() for run_id in ids])
        read = {child.run_id: child for child in runs}
        for each in level:
            each.children = [read[run_id] for run_id in shown[each.run_id] if run_id in read]
            for child in each.children:
                child.depth = depth
        level = [child for each in level for child in each.children]
    return root


async def _parent(ledger: Ledger, run: Run) -> Relative | None:
    [submitted] = await ledger.history(run.run_id, limit=1)
    named = getattr(submitted, "parent", None)
    try:
        runs = await _read(ledger, [check_run_id(named)]) if isinstance(named, str) else []
    except InvalidValue:  # a program may write there what it likes
        return None
    return runs[0] if runs else None


async def _earlier(ledger: Ledger, run: Run) -> list[Relative]:
    """Return the runs that this one repeats, the first one first."""
    if rerun_of(run.key) is None:
        return []
    return (await _chain(ledger, _EARLIER, run))[::-1]


async def _later(ledger: Ledger, run: Run) -> list[Relative]:
    """Return the reruns of a run, and theirs."""
    return await _chain(ledger, _LATER, run)


async def _chain(ledger: Ledger, statement: str, run: Run) -> list[Relative]:
    rows = await fetch(ledger.pool, statement, ledger.project_id, run.run_id, RERUN)
    return await _read(ledger, [row["run_id"] for row in rows])


async def _asked_for(
    ledger: Ledger, parents: Sequence[UUID], most: int
) -> dict[UUID, tuple[list[UUID], int]]:
    """Return the children that runs asked for, at most `most` of each, and how many more."""
    rows = await fetch(ledger.pool, _ASKED, ledger.project_id, list(parents)) if parents else []
    calls = [(row["run_id"], *_named(row, most)) for row in rows]
    keys = [key for _, _, named, _ in calls for key in named]
    by_key = await _keyed(ledger, keys) if keys else {}
    children: dict[UUID, tuple[list[UUID], int]] = {}
    for parent, ids, named, count in calls:
        known, more = children.get(parent, ([], 0))
        of_call = (ids + [by_key[key] for key in named if key in by_key])[: most - len(known)]
        children[parent] = (known + of_call, more + count - len(of_call))
    return children


def _named(row: Mapping[str, Any], most: int) -> tuple[list[UUID], list[str], int]:
    """Return the ids of a call's children, or else their keys, at most `most`; and their number."""
    content = decode_payload(row["body"])
    output = content.get("output") if isinstance(content, dict) else None
    try:
        if isinstance(output, list):
            return [check_run_id(each) for each in output[:most]], [], len(output)
        count = int(output["count"]) if isinstance(output, dict) else 0
    except (InvalidValue, KeyError, TypeError, ValueError):
        return [], [], 0
    called = str(row["key"]).rpartition(":")[0]  # without the token of the attempt
    return [], [f"{called}/{number}" for number in range(1, min(count, most) + 1)], count


async def _keyed(ledger: Ledger, keys: Sequence[str]) -> dict[str, UUID]:
    rows = await fetch(ledger.pool, _KEYED, ledger.project_id, list(keys))
    return {row["key"]: row["run_id"] for row in rows}


async def _read(ledger: Ledger, ids: Sequence[UUID]) -> list[Relative]:
    if not ids:
        return []
    rows = await fetch(ledger.pool, _RELATIVES, ledger.project_id, list(ids))
    return [Relative(**dict(row)) for row in rows]
