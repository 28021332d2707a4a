"""Checks of tags: that a list of the runs with a tag has every such run, and no other.

Both tables are read page by page in the order of their keys, each page in a snapshot of its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

from runfold.ledger.months import FIRST_RUN
from runfold.ledger.postgres.connections import Pool
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
# A run without a state is named by the check of states. A list may begin with such a run's tag:
# the row that says so was written with the run.
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
    hidden = [
        _tag(row["run_id"], tag, "is missing in the list of its tag")
        async for row in _states(pool, project_id)
        for tag in row["wrong"] or ()
    ]
    invented = [
        _tag(row["run_id"], row["tag"], "is in the list of a tag that it does not have")
        async for row in _lists(pool, project_id)
        if row["wrong"]
    ]
    return hidden[:_TOLD] + invented[:_TOLD]


async def _states(pool: Pool, project_id: str) -> AsyncIterator[Any]:
    after = FIRST_RUN
    while page := await pool.fetch(_HIDDEN, project_id, after, _PAGE):
        for row in page:
            yield row
        after = page[-1]["run_id"]


async def _lists(pool: Pool, project_id: str) -> AsyncIterator[Any]:
    after = ("", "", FIRST_RUN)
    while page := await pool.fetch(_INVENTED, project_id, *after, _PAGE):
        for row in page:
            yield row
        last = page[-1]
        after = (last["tag"], last["kind"], last["run_id"])


def _tag(run_id: Any, tag: str, problem: str) -> Finding:
    return Finding(run_id, None, "tag", f"{problem}: {tag!r}")
