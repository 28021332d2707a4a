"""The schema's revisions: those this code has, and the code that a database works with."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Final

REVISION: Final = "SELECT version_num FROM ledger.alembic_version"
OLDEST_CODE: Final = """
SELECT substring(col_description('ledger.alembic_version'::regclass, 1)
  FROM format('revision %s works with code from (\\w+) on', revision.version_num)) AS oldest
FROM ledger.alembic_version AS revision
"""
"""The oldest revision whose code works with the database, as its migration recorded."""


@cache
def known() -> tuple[str, ...]:
    """Return this code's schema revisions, oldest first: the numbers of the migrations."""
    return tuple(
        sorted(path.name.split("_")[0] for path in (migrations() / "versions").glob("[0-9]*_*.py"))
    )


def head() -> str:
    """Return the schema revision that this code needs."""
    return known()[-1]


def oldest_code_comment(revision: str, oldest: str) -> str:
    """Return the statement that records what `OLDEST_CODE` reads."""
    return (
        "COMMENT ON COLUMN ledger.alembic_version.version_num "
        f"IS 'revision {revision} works with code from {oldest} on'"
    )


def migrations() -> Path:
    """Return the folder of the migrations: in an installed package, or in the repository."""
    packaged = Path(str(files("runfold.ledger") / "_migrations"))
    return packaged if packaged.is_dir() else packaged.resolve().parents[1] / "migrations"
