"""Checks of tags: that a list of the runs with a tag has every such run, and no other.

Both tables are read page by page in the order of their keys, each page in a snapshot of its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final
from uuid import UUID

from runfold.ledger.months import FIRST_RUN
from runfold.ledger.postgres.connections import Pool, fetch
from runfold.ledger.proof.chain import Finding

_PAGE: Final = 5_000
_TOLD: Final = 100
"""The most findings of each sort."""
_HIDDEN: Final = """
SELECT page.run_id, (SELECT array_agg(each.tag) FROM unnest(page.tags) AS each (tag)
  WHERE NOT EXISTS (SELECT FROM ledger.run_tag AS t
    WHERE t.project_id = $1 AND t.tag = each.tag AND t.kind = page.kind
      AND t.run_id = page.run_id)) AS wrong
FROM (SELECT s.run_id, s.kind, s.tags FROM ledger.run_state AS s
  WHERE s.project_id = $1 AND s.run_id > $2 ORDER BY s.run_id LIMIT $3) AS page
ORDER BY page.run_id
"""
# A run that has no state is left to the check of states, which names it.
_INVENTED: Final = """
SELECT page.tag, page.kind, page.run_id, EXISTS (SELECT FROM ledger.run_state AS s
  WHERE s.project_id = $1 AND s.run_id = page.run_id
    AND (s.kind <> page.kind OR page.tag <> ALL (s.tags))) AS wrong
FROM (SELECT t.tag, t.kind, t.run_id FROM ledger.run_tag AS t
  WHERE t.project_id = $1 AND (t.tag, t.kind, t.run_id) > ($2, $3, $4)
  ORDER BY t.tag, t.kind, t.run_id LIMIT $5) AS page
ORDER BY page.tag, page.kind, page.run_id
"""


async def check_tags(pool: Pool, project_id: str) -> list[Finding]:
    """Return what is wrong with the lists of a project's runs by tag."""
    return [
        *await _first(_hidden(pool, project_id), "is missing in the list of its tag"),
        *await _first(_invented(pool, project_id), "is in the list of a tag that it does not have"),
    ]


async def _first(wrong: AsyncIterator[tuple[UUID, str]], problem: str) -> list[Finding]:
    """Return a finding for each run and tag; not all of them, where there are very many."""
    found: list[Finding] = []
    async for run_id, tag in wrong:
        found.append(Finding(run_id, None, "tag", f"{problem}: {tag!r}"))
        if len(found) == _TOLD:
            break
    return found


async def _hidden(pool: Pool, project_id: str) -> AsyncIterator[tuple[UUID, str]]:
    after = FIRST_RUN
    while page := await fetch(pool, _HIDDEN, project_id, after, _PAGE):
        for row in page:
            for tag in row["wrong"] or ():
                yield row["run_id"], tag
        after = page[-1]["run_id"]


async def _invented(pool: Pool, project_id: str) -> AsyncIterator[tuple[UUID, str]]:
    after = ("", "", FIRST_RUN)
    while page := await fetch(pool, _INVENTED, project_id, *after, _PAGE):
        for row in page:
            if row["wrong"]:
                yield row["run_id"], row["tag"]
        last = page[-1]
        after = (last["tag"], last["kind"], last["run_id"])
