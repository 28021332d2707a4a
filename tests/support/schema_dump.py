"""Writes `migrations/schema.sql` from a migrated database: `make schema`."""

from __future__ import annotations

import asyncio
import re
import subprocess
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from runfold.ledger.postgres import schema
from runfold.ledger.postgres.embedded.programs import find_programs
from tests.support.server import postgres_server

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
    return re.sub(r"(functions|installed) sha256:[0-9a-f]+", r"\1 sha256:...", text) + "\n"


def main() -> None:
    """Migrate a fresh database and write the file."""
    with postgres_server() as server:
        asyncio.run(schema.upgrade(server.url))
        SCHEMA_FILE.write_text(dump(server.url))


if __name__ == "__main__":
    main()
