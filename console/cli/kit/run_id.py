"""Find a run by the first digits of its id."""

from __future__ import annotations

import re
from typing import Final
from uuid import UUID

from runfold.ledger import Ledger
from runfold.ledger.errors import InvalidValue, RunNotFound
from runfold.ledger.postgres.connections import fetch
from runfold.ledger.reading.permitted import check_may
from runfold.ledger.reading.query import MIN_DIGITS
from runfold.ledger.validation import check_run_id

_DIGITS: Final = 32
_PREFIX: Final = re.compile(r"[0-9a-f]+(-[0-9a-f]+)*-?", re.ASCII)
_RANGE: Final = """
SELECT run_id FROM ledger.run_state
WHERE project_id = $1 AND run_id BETWEEN $2 AND $3 ORDER BY run_id LIMIT 2
"""


class AmbiguousRun(InvalidValue):
    """More than one run's id begins with this prefix; `candidates` are two of them."""

    def __init__(self, prefix: str, candidates: tuple[UUID, UUID]) -> None:
        self.candidates = candidates
        shown = " and ".join(map(str, candidates))
        super().__init__(
            "run id", prefix, f"fits more than one run, such as {shown}: give more digits"
        )


async def find_run(ledger: Ledger, text: str) -> UUID:
    """Return the id of the one run whose id begins with `text`; a whole id is not looked up.

    Raises InvalidValue if no id can begin so, AmbiguousRun, RunNotFound, or AccessDenied for a
    login that sees no run.
    """
    first, last = id_range(text)
    if first == last:
        return check_run_id(first)
    rows = await fetch(ledger.pool, _RANGE, ledger.project_id, first, last)
    if not rows:
        await check_may(ledger.pool, ledger.project_id, "read", "work", "audit")
        raise RunNotFound(f"{text}…", ledger.project_id)
    if len(rows) > 1:
        raise AmbiguousRun(text, (rows[0]["run_id"], rows[1]["run_id"]))
    run_id: UUID = rows[0]["run_id"]
    return run_id


def id_range(text: str) -> tuple[UUID, UUID]:
    """Return the smallest and the largest id that begin with `text`; raises InvalidValue."""
    prefix = text.strip().lower()
    digits = prefix.replace("-", "")
    if not _PREFIX.fullmatch(prefix) or len(digits) > _DIGITS:
        raise InvalidValue(
            "run id", text, "is not a UUID or the beginning of one: copy it from `runfold runs`"
        )
    if len(digits) < MIN_DIGITS:
        raise InvalidValue("run id", text, f"is too short: give at least {MIN_DIGITS} digits")
    return UUID(digits.ljust(_DIGITS, "0")), UUID(digits.ljust(_DIGITS, "f"))
