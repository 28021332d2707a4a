"""One run of a project by its id, and the kinds that there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from runfold.ledger.errors import RunNotFound, UnknownKind
from runfold.ledger.postgres.connections import Pool, fetch
from runfold.ledger.reading.permitted import KIND_RIGHTS, RUN_RIGHTS, check_found
from runfold.ledger.run import Run
from runfold.ledger.validation import check_run_id

GET: Final = "SELECT * FROM ledger.read_runs($1, ARRAY[$2::uuid])"
KINDS: Final = "SELECT DISTINCT kind FROM ledger.kind WHERE project_id = $1 ORDER BY kind"


async def get(pool: Pool, project_id: str, run_id: UUID | str) -> Run:
    """Return the run as it is now. Raises RunNotFound, AccessDenied or InvalidValue."""
    checked = check_run_id(run_id)
    rows = await fetch(pool, GET, project_id, checked)
    await check_found(rows, pool, project_id, *RUN_RIGHTS)
    if not rows:
        raise RunNotFound(checked, project_id)
    return Run.from_row(rows[0])


async def require_kinds(pool: Pool, project_id: str, kinds: Sequence[str] | None) -> None:
    """Raise UnknownKind for a kind that no run of the project has ever had, or AccessDenied."""
    if not kinds:
        return
    known = [row["kind"] for row in await fetch(pool, KINDS, project_id)]
    await check_found(known, pool, project_id, *KIND_RIGHTS)
    for kind in kinds:
        if kind not in known:
            raise UnknownKind(kind, known)
