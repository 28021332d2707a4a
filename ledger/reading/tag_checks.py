"""Checks of tags: that a list of the runs with a tag has every such run, and no other."""

from __future__ import annotations

from typing import Any, Final

from runfold.ledger.postgres.connections import Pool
from runfold.ledger.proof.chain import Finding

_TOLD: Final = 100
"""The most findings of each sort."""
_HIDDEN: Final = """
SELECT s.run_id, each.tag FROM ledger.run_state AS s CROSS JOIN LATERAL unnest(s.tags) AS each (tag)
WHERE s.project_id = $1 AND NOT EXISTS (SELECT FROM ledger.run_tag AS t
  WHERE t.project_id = s.project_id AND t.tag = each.tag AND t.kind = s.kind
    AND t.run_id = s.run_id)
LIMIT $2
"""
_INVENTED: Final = """
SELECT t.run_id, t.tag FROM ledger.run_tag AS t
WHERE t.project_id = $1 AND NOT EXISTS (SELECT FROM ledger.run_state AS s
  WHERE s.project_id = t.project_id AND s.run_id = t.run_id AND s.kind = t.kind
    AND t.tag = ANY (s.tags))
LIMIT $2
"""


async def check_tags(pool: Pool, project_id: str) -> list[Finding]:
    """Return what is wrong with the lists of a project's runs by tag."""
    hidden = await pool.fetch(_HIDDEN, project_id, _TOLD)
    invented = await pool.fetch(_INVENTED, project_id, _TOLD)
    return [
        *(_tag(row, "is missing in the list of its tag") for row in hidden),
        *(_tag(row, "is in the list of a tag that it does not have") for row in invented),
    ]


def _tag(row: Any, problem: str) -> Finding:
    return Finding(row["run_id"], None, "tag", f"{problem}: {row['tag']!r}")
