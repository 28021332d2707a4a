"""The raw limit: the same rows by plain batched statements, without rules, hashes or folds."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, TypeAlias

import asyncpg

Pool: TypeAlias = "asyncpg.Pool[Any]"

SCHEMA: Final = """
DROP SCHEMA IF EXISTS raw CASCADE;
CREATE SCHEMA raw;
CREATE TABLE raw.event (LIKE ledger.event INCLUDING DEFAULTS, PRIMARY KEY (project_id, run_id,
  version));
CREATE INDEX ON raw.event (txid, position);
CREATE TABLE raw.payload (LIKE ledger.payload, PRIMARY KEY (project_id, run_id, version));
CREATE TABLE raw.run_state (LIKE ledger.run_state, PRIMARY KEY (project_id, run_id))
  WITH (fillfactor = 70);
CREATE INDEX ON raw.run_state (project_id, kind, priority, run_id) WHERE available_at IS NOT NULL;
CREATE INDEX ON raw.run_state (project_id, run_id) WHERE token IS NOT NULL;
CREATE TABLE raw.commit (id uuid PRIMARY KEY, body text);
"""

_SUBMIT_EVENT: Final = """
WITH e AS (INSERT INTO raw.event (project_id, run_id, version, recorded_at, type, actor, state,
  kind, priority, max_attempts,
  tags, available_at, payload_hash, hash)
  SELECT 'p', id, 1, clock_timestamp(), 'run.submitted', 'bench', 'pending', 'noop', 0, 3, '{}',
    clock_timestamp(), $3, $3
  FROM unnest($1::uuid[]) AS u (id)),
p AS (INSERT INTO raw.payload (project_id, run_id, version, salt, body)
  SELECT 'p', id, 1, $3, body::json FROM unnest($1::uuid[], $2::text[]) AS u (id, body))
INSERT INTO raw.run_state (project_id, run_id, version, hash, kind, state, priority, attempt_count,
  max_attempts, available_at,
  created_at, updated_at, cost_usd, step_count, tags)
SELECT 'p', id, 1, $3, 'noop', 'pending', 0, 0, 3, clock_timestamp(), clock_timestamp(),
  clock_timestamp(), 0, 0, '{}'
FROM unnest($1::uuid[]) AS u (id)
"""
_CLAIM_EVENT: Final = """
INSERT INTO raw.event (project_id, run_id, version, recorded_at, type, actor, state, attempt,
  worker_id, token,
  lease_until, hash)
SELECT 'p', id, 2, clock_timestamp(), 'lease.acquired', 'w', 'running', 1, 'w', 2,
  clock_timestamp() + interval '60 s', $2
FROM unnest($1::uuid[]) AS u (id)
"""
_CLAIM_STATE: Final = """
UPDATE raw.run_state AS s SET version = 2, hash = $2, state = 'running', attempt_count = 1,
  worker_id = 'w', token = 2,
  lease_until = clock_timestamp() + interval '60 s', heartbeat_at = clock_timestamp(),
    available_at = NULL,
  started_at = clock_timestamp(), updated_at = clock_timestamp()
WHERE s.project_id = 'p' AND s.run_id = ANY ($1::uuid[])
RETURNING s.run_id
"""
_END_EVENT: Final = """
WITH p AS (INSERT INTO raw.payload (project_id, run_id, version, salt, body)
  SELECT 'p', id, 3, $3, body::json FROM unnest($1::uuid[], $2::text[]) AS u (id, body))
INSERT INTO raw.event (project_id, run_id, version, recorded_at, type, actor, state, cost_usd,
  step_count, payload_hash, hash)
SELECT 'p', id, 3, clock_timestamp(), 'run.completed', 'w', 'completed', 0.01, 2, $3, $3
  FROM unnest($1::uuid[]) AS u (id)
"""
_END_STATE: Final = """
UPDATE raw.run_state AS s SET version = 3, hash = $2, state = 'completed', worker_id = NULL,
  token = NULL, lease_until = NULL,
  completed_at = clock_timestamp(), updated_at = clock_timestamp(), cost_usd = 0.01,
    step_count = 2, outcome_version = 3
WHERE s.project_id = 'p' AND s.run_id = ANY ($1::uuid[])
"""
_HASH: Final = bytes(32)
_INPUT: Final = '{"input":{"path":"a/b/c.py","size":1234}}'
_OUTPUT: Final = '{"output":{"lines":120,"ok":true}}'


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Pool]:
    """Open a pool with the raw limit's tables, plans pinned so that no flip flatters the ledger."""
    pins = {
        "enable_hashjoin": "off",
        "enable_mergejoin": "off",
        "enable_seqscan": "off",
        "jit": "off",
    }
    async with asyncpg.create_pool(
        url, min_size=8, max_size=8, reset=_keep, server_settings=pins
    ) as pool:
        await pool.execute(SCHEMA)
        yield pool


async def _keep(_: Any) -> None:
    """Leave a returned connection as it is, as the ledger's own pool does."""


async def submit(pool: Pool, ids: list[uuid.UUID]) -> None:
    """Write the rows of submitted runs."""
    await pool.execute(_SUBMIT_EVENT, ids, [_INPUT] * len(ids), _HASH)


async def lifecycle(pool: Pool, ids: list[uuid.UUID]) -> None:
    """Write the rows of a lease and a completion in two transactions, as the work parts them."""
    async with pool.acquire() as connection:
        async with connection.transaction():
            await connection.execute(_CLAIM_EVENT, ids, _HASH)
            await connection.fetch(_CLAIM_STATE, ids, _HASH)
        async with connection.transaction():
            await connection.execute(_END_EVENT, ids, [_OUTPUT] * len(ids), _HASH)
            await connection.execute(_END_STATE, ids, _HASH)


async def commit(pool: Pool) -> None:
    """Commit one bare row."""
    await pool.execute("INSERT INTO raw.commit VALUES ($1, $2)", uuid.uuid4(), _OUTPUT)
