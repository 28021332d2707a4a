"""Decisions as any language makes them: by `ledger.decide` itself."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import asyncpg

from tests.support.databases import PROJECT

DECIDE = "SELECT version, refused FROM ledger.decide($1, $2, $3, $4, $5::int, $6, $7, $8, $9::text)"


async def decided(
    source: asyncpg.Connection | asyncpg.Pool, run_id: UUID, request: int | None, **given: Any
) -> asyncpg.Record | None:
    """Decide a request; return the version of the event, or why it was refused; None for no run."""
    facts = {
        "project": PROJECT, "actor": "ann", "type": "approval.granted", "shown": None,
        "meaning": None, "body": None, "key": None, **given,
    }  # fmt: skip
    return await source.fetchrow(
        DECIDE, facts["project"], facts["actor"], run_id, facts["type"], request, facts["shown"],
        facts["meaning"], facts["body"], facts["key"],
    )  # fmt: skip
