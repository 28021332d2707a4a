"""A server for one benchmark: built in, in a folder that is deleted with it."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import structlog

from runfold.ledger import Ledger
from runfold.ledger.postgres.embedded.postgres import EmbeddedPostgres


@asynccontextmanager
async def opened(settings: Mapping[str, str] | None = None) -> AsyncIterator[Ledger]:
    """Open a ledger on a new server, which may have settings of its own."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        cache_logger_on_first_use=True,
    )
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="runfold-bench-") as home:
        Path(home).chmod(0o755)
        os.environ["RUNFOLD_HOME"] = str(Path(home) / "pg")
        with EmbeddedPostgres(Path(home) / "pg", settings=settings or {}):
            async with Ledger.open(project="default") as ledger:
                yield ledger
