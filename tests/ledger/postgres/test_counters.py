"""A counter that could not go on would stop the work that counts: the table refuses the number."""

from __future__ import annotations

from typing import Final

import asyncpg
import pytest

from runfold.ledger import Ledger
from runfold.projections.declared.installing import install
from tests.support.projections import sizes

STOPPED: Final = (
    "low_water SET number = 9223372036854775807",
    "low_water SET seen_at = '-infinity'",
    "low_water SET seen_clock = '-infinity'",
    "projection SET events = 9223372036854775807",
    "projection_aside SET events = 9223372036854775807",
    "delivery SET attempts = 2147483647",
    "delivery SET attempts = -1",
)
_ASIDE: Final = """
INSERT INTO ledger.projection_aside
  (relation, name, project_id, run_id, first_position, last_position)
VALUES ('projection.gone_v1', 'gone', $1, gen_random_uuid(), 1, 1)
"""
_DELIVERY: Final = """
INSERT INTO ledger.delivery (project_id, webhook_id, run_id, version, type, body, created_at)
SELECT hook.project_id, hook.webhook_id, gen_random_uuid(), 1, 'run.failed', '{}', now()
FROM ledger.webhook AS hook WHERE hook.project_id = $1
"""


async def test_no_counter_is_set_to_where_it_cannot_go_on(
    ledger: Ledger, subtests: pytest.Subtests
) -> None:
    await ledger.submit("parse")
    await ledger.claim("w:1")
    await install(ledger.pool, sizes())
    await ledger.webhooks.add("https://example.com/hook")
    for statement in (_ASIDE, _DELIVERY):
        await ledger.pool.execute(statement, ledger.project_id)
    for damage in STOPPED:
        with subtests.test(damage):
            assert await ledger.pool.fetchval(f"SELECT count(*) FROM ledger.{damage.split()[0]}")
            with pytest.raises(asyncpg.CheckViolationError):
                await ledger.pool.execute(f"UPDATE ledger.{damage}")
