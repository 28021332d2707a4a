"""Writes `migrations/schema.sql` and `functions.json` from a migrated database: `make schema`."""

from __future__ import annotations

import asyncio
import re
import subprocess
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg

from runfold.ledger.postgres import revisions, schema
from runfold.ledger.postgres.embedded.programs import find_programs
from runfold.ledger.postgres.urls import driver_url
from tests.support.server import postgres_server
from tests.support.signatures import Functions, callable_functions, record

SCHEMA_FILE = Path(__file__).parents[2] / "migrations" / "schema.sql"


def dump(url: str) -> str:
    """Return the schema as SQL, without what differs from one month or server to the next."""
    parts = urlsplit(url)
    host = parse_qs(parts.query)["host"][0]
    done = subprocess.run(
        [
            find_programs() / "pg_dump", "--schema-only", "--schema=ledger", "--no-owner",
            "--restrict-key=runfold", "--exclude-table=ledger.event_2*",
            "-h", host, "-p", "5432", "-U", "postgres", parts.path.lstrip("/"),
        ],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    kept = [
        line
        for line in done.stdout.splitlines()
        if not line.startswith(("--", "SET ", "SELECT pg_catalog", "\\"))
    ]
    text = re.sub(r"\n{2,}", "\n\n", "\n".join(kept)).strip()
    text = re.sub(r"(functions|installed) sha256:[0-9a-f]+", r"\1 sha256:...", text)
    return re.sub(r"(IS 'installed [^']*?\n)[^']*'", r"\1...'", text) + "\n"


async def _functions(url: str) -> Functions:
    await schema.upgrade(url)
    connection = await asyncpg.connect(driver_url(url))
    try:
        return await callable_functions(connection)
    finally:
        await connection.close()


def main() -> None:
    """Migrate a fresh database and write the files."""
    with postgres_server() as server:
        record(revisions.head(), asyncio.run(_functions(server.url)))
        SCHEMA_FILE.write_text(dump(server.url))


if __name__ == "__main__":
    main()
