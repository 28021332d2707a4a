"""A copy of this code with one more schema revision: what a later release is to this one."""

from __future__ import annotations

import shutil
from pathlib import Path

ROOT = Path(__file__).parents[2]
NEWER = "9000"
_REVISION = f'''
"""A column, and a function with one more parameter."""

from alembic import op

revision = "{NEWER}"
down_revision = "{{before}}"
branch_labels = None
depends_on = None
oldest_code = "{{oldest}}"


def upgrade() -> None:
    """Change the tables."""
    op.execute("DROP VIEW IF EXISTS ledger.entry CASCADE")
    for table in ("event", "schedule"):
        op.execute("ALTER TABLE ledger." + table + " ADD COLUMN remark text DEFAULT 'none'")
    op.execute("DROP FUNCTION IF EXISTS ledger.heartbeat(text, uuid[], int[], interval[], text[])")
'''
_EMPTY = f'''
"""A function is another."""

revision = "{NEWER}"
down_revision = "{{before}}"
branch_labels = None
depends_on = None
oldest_code = "{{before}}"


def upgrade() -> None:
    """Leave the tables alone."""
'''
_PARAMETER = "p_workers text[] DEFAULT NULL"
INDEXES = {
    "event_newer": "CREATE INDEX event_newer ON ledger.event (project_id, type, run_id);",
    "run_newer": "CREATE INDEX run_newer ON ledger.run_state (project_id, created_at);",
}


def make_newer_code(folder: Path, *, before: str, oldest: str) -> Path:
    """Copy the package to `folder` and add the revision; return the folder for PYTHONPATH."""
    package = _copied(folder)
    migrations = package / "ledger" / "_migrations"
    revision = _REVISION.replace("{before}", before).replace("{oldest}", oldest)
    (migrations / "versions" / f"{NEWER}_newer.py").write_text(revision)
    sql = package / "ledger" / "sql"
    _replace(
        sql / "operations" / "heartbeat.sql",
        _PARAMETER,
        f"{_PARAMETER}, p_newer boolean DEFAULT NULL",
    )
    _replace(
        package / "ledger" / "operations" / "heartbeat.py",
        "ledger.heartbeat($1, $2, $3, $4, $5)",
        "ledger.heartbeat($1, $2, $3, $4, $5, true)",
    )
    (sql / "indexes").mkdir(exist_ok=True)
    for name, text in INDEXES.items():
        (sql / "indexes" / f"{name}.sql").write_text(text)
    _replace(
        package / "ledger" / "postgres" / "schema.py",
        "INDEXES: Final[tuple[str, ...]] = (",
        f"INDEXES: Final[tuple[str, ...]] = (*{sorted(INDEXES)!r},",
    )
    return folder


def make_code_with_another_function(folder: Path, *, before: str) -> Path:
    """Copy the package to `folder` with an empty revision and another body of a function."""
    package = _copied(folder)
    versions = package / "ledger" / "_migrations" / "versions"
    (versions / f"{NEWER}_newer.py").write_text(_EMPTY.replace("{before}", before))
    heartbeat = package / "ledger" / "sql" / "operations" / "heartbeat.sql"
    heartbeat.write_text(heartbeat.read_text().replace("BEGIN\n", "BEGIN\n  -- newer\n", 1))
    return folder


def _copied(folder: Path) -> Path:
    """Copy the package with its bytecode, which holds for a copied file: its time is copied, too.

    A file that another process is writing has an ending more.
    """
    package = folder / "runfold"
    ignored = shutil.ignore_patterns("*.pyc.*")
    shutil.copytree(ROOT / "src" / "runfold", package, ignore=ignored)
    shutil.copytree(ROOT / "migrations", package / "ledger" / "_migrations", ignore=ignored)
    return package


def _replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert text.count(old) == 1, f"{file.name}: {old}"
    file.write_text(text.replace(old, new))
