"""Checks of tags: that a list of the runs with a tag has every such run, and no other.

Both tables are read page by page in the order of their keys, each page in a snapshot of its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from runfold.ledger.months import FIRST_RUN
from runfold.ledger.postgres.connections import Pool, fetch
from runfold.ledger.proof.chain import Finding

_PAGE: Final = 5_000
_TOLD: Final = 100
"""The most findings of each sort."""
_HIDDEN: Final = """
SELECT page.run_id, page.kind, (SELECT array_agg(each.tag) FROM unnest(page.tags) AS each (tag)
  WHERE NOT EXISTS (SELECT FROM ledger.run_tag AS entry
    WHERE entry.project_id = $1 AND entry.tag = each.tag AND entry.kind = page.kind
      AND entry.run_id = page.run_id)) AS wrong
FROM (SELECT run.run_id, run.kind, run.tags FROM ledger.run_state AS run
  WHERE run.project_id = $1 AND run.run_id > $2 ORDER BY run.run_id LIMIT $3) AS page
ORDER BY page.run_id
"""
_INVENTED: Final = """
SELECT page.tag, page.kind, page.run_id, NOT EXISTS (SELECT FROM ledger.run_state AS run
  WHERE run.project_id = $1 AND run.run_id = page.run_id
    AND run.kind = page.kind AND page.tag = ANY (run.tags)) AS wrong
FROM (SELECT entry.tag, entry.kind, entry.run_id FROM ledger.run_tag AS entry
  WHERE entry.project_id = $1 AND (entry.tag, entry.kind, entry.run_id) > ($2, $3, $4)
  ORDER BY entry.tag, entry.kind, entry.run_id LIMIT $5) AS page
ORDER BY page.tag, page.kind, page.run_id
"""


@dataclass(frozen=True, slots=True)
class WrongTag:
    """A run that is missing in the list of its tag, or is in one of a tag that it does not have."""

    run_id: UUID
    kind: str
    tag: str
    is_listed: bool

    def __str__(self) -> str:
        return (
            f"is in the list of a tag that it does not have: {self.tag!r}"
            if self.is_listed
            else f"is missing in the list of its tag: {self.tag!r}"
        )


async def check_tags(pool: Pool, project_id: str) -> list[Finding]:
    """Return what is wrong with the lists of a project's runs by tag."""
    hidden, invented = hidden_tags(pool, project_id), invented_tags(pool, project_id)
    return [*await _first(hidden), *await _first(invented)]


async def hidden_tags(pool: Pool, project_id: str) -> AsyncIterator[WrongTag]:
    """Yield the tags of runs that the list of the tag does not have."""
    after = FIRST_RUN
    while page := await fetch(pool, _HIDDEN, project_id, after, _PAGE):
        for row in page:
            for tag in row["wrong"] or ():
                yield WrongTag(row["run_id"], row["kind"], tag, is_listed=False)
        after = page[-1]["run_id"]


async def invented_tags(pool: Pool, project_id: str) -> AsyncIterator[WrongTag]:
    """Yield the entries of lists whose run does not have the tag, or does not exist."""
    after = ("", "", FIRST_RUN)
    while page := await fetch(pool, _INVENTED, project_id, *after, _PAGE):
        for row in page:
            if row["wrong"]:
                yield WrongTag(row["run_id"], row["kind"], row["tag"], is_listed=True)
        last = page[-1]
        after = (last["tag"], last["kind"], last["run_id"])


async def _first(wrong: AsyncIterator[WrongTag]) -> list[Finding]:
    """Return a finding for each run and tag; not all of them, where there are very many."""
    findings: list[Finding] = []
    async for entry in wrong:
        findings.append(Finding(entry.run_id, None, "tag", str(entry)))
        if len(findings) == _TOLD:
            break
    return findings
