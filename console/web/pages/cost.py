"""What runs cost by kind and day, from the projection that adds it up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fastapi.responses import Response

from runfold.console.web.pages.viewing import ReadViewer, page, router
from runfold.ledger.postgres.connections import fetch
from runfold.projections.declared.rows import is_readable

MOST: Final = 500
_DAYS: Final = f"""
SELECT day, kind, cost_usd, step_count, submitted, completed, failed FROM projection.spending
WHERE project_id = $1 ORDER BY day DESC, kind LIMIT {MOST}
"""
pages = router()


@page(pages, "/p/{project}/cost", csv=True)
async def cost(viewer: ReadViewer) -> Response:
    """List what each kind cost on each day, the newest first."""
    ledger = viewer.ledger
    days: list[Mapping[str, Any]] | None = None
    if await is_readable(ledger.pool, "spending"):
        days = [dict(row) for row in await fetch(ledger.pool, _DAYS, ledger.project_id)]
    highest = max((row["cost_usd"] or 0 for row in days or []), default=0)
    return viewer.page("cost.html", {"days": days}, rows=days or [], highest=highest, most=MOST)
