"""A list reads what it shows: nothing of other projects, and nothing that has ended."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final
from uuid import UUID

import asyncpg
import pytest

from runfold.console.cli.health.waiting_checks import CHANGED, VACANT
from runfold.console.cli.health.work_checks import EXPIRED
from runfold.console.shared import approval_requests
from runfold.ledger import Ledger, api_tokens, payload_reads, roles, schedules, sessions, users
from runfold.ledger.archive import holds, record
from runfold.ledger.postgres.urls import driver_url
from runfold.projections.declared import status
from runfold.workers.journal import children
from tests.support.databases import PROJECT
from tests.support.logins import with_login

MOST: Final = 200
"""Rows and entries that a call may read: what it shows, grants, and a few months."""
NOWHERE: Final = UUID(int=1)
ROLES: Final = ("runfold_auditor", "runfold_projector")
# Of each table many rows that have ended or are somewhere else.
FILL: Final = """
SET session_replication_role = replica;
INSERT INTO ledger.access_grant (credential, project_id, rights, actors, actor)
  SELECT 'login' || n, 'test', '{}', '{*}', 'x' FROM generate_series(1, 3000) AS n;
INSERT INTO ledger.access_grant (credential, project_id, rights, actors, actor)
  SELECT 'login' || n, 'other', '{read}', '{*}', 'x' FROM generate_series(1, 3000) AS n;
INSERT INTO ledger.web_session
    (session_id, sha256, credential, created_at, expires_at, last_used_at, ended_at)
  SELECT 's' || n, sha256(int4send(n)), 'token:x', now(), now() + (n % 2 - 0.5) * interval '1 h',
    now(), CASE n % 2 WHEN 1 THEN now() END FROM generate_series(1, 3000) AS n;
INSERT INTO ledger.payload_read (project_id, read_at, run_id, credential, route)
  SELECT 'test', now() - n * interval '1 min', gen_random_uuid(), 'x', '/'
  FROM generate_series(1, 3000) AS n;
INSERT INTO ledger.role_event (project_id, number, recorded_at, type, role, member, actor)
  SELECT 'test', n, now(), 'role.revoked', 'r' || n % 5, 'm' || n, 'x'
  FROM generate_series(1, 3000) AS n;
INSERT INTO ledger.role_event (project_id, number, recorded_at, type, role, member, actor)
  SELECT 'test', 3000 + n, now(), 'role.granted', CASE WHEN n > 3 THEN 'desk' ELSE 'few' END,
    'm' || n, 'x' FROM generate_series(1, 3000) AS n;
INSERT INTO ledger.schedule (project_id, name, kind, cron, timezone, next_at, actor)
  SELECT 'test', 's' || n, 'parse', '* * * * *', 'UTC', now() + interval '1 h', 'x'
  FROM generate_series(1, 3000) AS n;
INSERT INTO ledger.kind (project_id, kind, run_id) VALUES ('test', 'parse', gen_random_uuid());
INSERT INTO ledger.run_state (project_id, run_id, version, hash, kind, state, priority,
    attempt_count, max_attempts, completed_at, created_at, updated_at, cost_usd, step_count, tags)
  SELECT 'test', ledger.uuid7(), 3, '', 'parse', 'completed', 0, 1, 3, now(), now(), now(), 0, 0,
    '{}' FROM generate_series(1, 3000) AS n;
INSERT INTO ledger.event (project_id, run_id, version, recorded_at, type, actor, error_code, hash)
  SELECT project_id, run_id, version, now(), 'run.failed', 'w:1', 'E-' || version, ''
  FROM ledger.run_state;
INSERT INTO ledger.api_token (token_id, sha256, name, created_at, expires_at, actor)
  SELECT 't' || n, sha256(int4send(n)), 'x', now() + n * interval '1 s', now(), 'x'
  FROM generate_series(1, 3000) AS n;
INSERT INTO ledger.user_account (name, issuer, subject, created_at, changed_at, actor)
  SELECT 'ann' || n, 'x', n, now(), now(), 'x' FROM generate_series(1, 3000) AS n;
INSERT INTO ledger.credential_use (credential)
  SELECT unnest(ARRAY['token:t' || n, 'user:ann' || n]) FROM generate_series(1, 3000) AS n;
INSERT INTO ledger.archive_event (project_id, number, recorded_at, type, actor, month, run_id)
  SELECT 'test', n, now(), 'hold.released', 'x', '2025-02', gen_random_uuid()
  FROM generate_series(1, 3000) AS n;
INSERT INTO ledger.projection (name, version, digest, generation, snapshot, position)
  SELECT name, 1, '', 1, start, 0 FROM unnest('{few,many}'::text[]) AS name, ledger.feed_generation;
INSERT INTO ledger.projection_aside (relation, name, project_id, run_id, first_position,
    last_position, event_version, error)
  SELECT 'projection.many_v1', 'many', 'test', gen_random_uuid(), n, n, 1, 'bad'
  FROM generate_series(1, 3000) AS n;
INSERT INTO ledger.rebuild (projection, definition, finished_at)
  SELECT 'few', '', now() FROM generate_series(1, 3000) AS n;
SET session_replication_role = origin;
"""
# Two runs that wait, of many more events than the others have.
LONG: Final = """
UPDATE ledger.run_state SET state = 'waiting_' || chosen.wait, completed_at = NULL, version = 3003,
    moved_position = 1
  FROM (SELECT run_id, CASE row_number() OVER (ORDER BY run_id) WHEN 1 THEN 'tool'
      ELSE 'approval' END AS wait FROM ledger.run_state ORDER BY run_id LIMIT 2) AS chosen
  WHERE run_state.run_id = chosen.run_id;
INSERT INTO ledger.event (project_id, run_id, version, recorded_at, type, actor, hash, name)
  SELECT project_id, run_id, n, now(), CASE n WHEN 3003 THEN replace(state, 'waiting_', '')
    || '.requested' ELSE 'step.completed' END, 'w:1', '', 'child:x'
  FROM ledger.run_state, generate_series(1, 3003) AS n WHERE completed_at IS NULL AND n <> 3;
"""
READ: Final = """
SELECT (SELECT sum(seq_tup_read) FROM pg_stat_user_tables WHERE schemaname = 'ledger')
  + (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE schemaname = 'ledger')
"""
BACK: Final = "SELECT ledger.forget_aside('projection.many_v1', 'test', $1)"
NEWEST: Final = "SELECT ledger.newest_request($1, $2)"
MONTHS: Final = "SELECT ledger.check_months_read(generation, start) FROM ledger.feed_generation"


async def often(call: Callable[[], Awaitable[Any]]) -> None:
    """Repeat a statement until it may have a plan for any values."""
    for _ in range(7):
        await call()


CALLS: Final[dict[str, Any]] = {
    "grants": lambda ledger: ledger.access_grants(),
    "sessions": lambda ledger: sessions.sessions(ledger.project),
    "reads of a run": lambda ledger: payload_reads.reads(ledger.project, run_id=NOWHERE),
    "members of a role": lambda ledger: often(lambda: ledger.role_members("few")),
    "history of a role": lambda ledger: often(lambda: ledger.role_history("few")),
    "enough members": lambda ledger: often(
        lambda: roles.require_members(ledger.pool, PROJECT, "desk", 2)
    ),
    "tokens": lambda ledger: api_tokens.tokens(ledger.project, after="t2000", limit=5),
    "users": lambda ledger: users.users(ledger.project, after="ann5", limit=5),
    "roles of a person": lambda ledger: approval_requests.roles_of(ledger, "m7"),
    "months": lambda ledger: record.archives(ledger.pool),
    "holds of a month": lambda ledger: holds.holds(ledger.pool, "2025-01"),
    "records of a month": lambda ledger: record.history(ledger.pool, "2025-01"),
    "a look at the feed": lambda ledger: ledger.pool.execute(MONTHS),
    "set aside: none": lambda ledger: status.set_aside(ledger.pool, "few"),
    "set aside: many": lambda ledger: status.set_aside(ledger.pool, "many", limit=1),
    "taken back": lambda ledger: ledger.pool.execute(BACK, NOWHERE),
    "handlers that were changed": lambda ledger: ledger.pool.fetch(CHANGED, "E-RUN-007"),
    "leases that expired": lambda ledger: ledger.pool.fetch(EXPIRED, 1_000),
    "schedules that are due": lambda ledger: schedules.due(ledger.project, []),
    "the next schedule": lambda ledger: schedules.until_next(ledger.project, []),
    "schedules of no handler": lambda ledger: schedules.orphans(ledger.project, []),
    "approvals that wait": lambda ledger: approval_requests.pending_requests(ledger, 10),
    "roles that too few have": lambda ledger: ledger.pool.fetch(VACANT),
    "rebuilds": lambda ledger: status.unfinished(ledger.pool),
}


async def newest_request(ledger: Ledger) -> None:
    """Look for the newest request of the run that waits for an approval."""
    [request] = await approval_requests.pending_requests(ledger, 1)
    found = await ledger.pool.fetchval(NEWEST, PROJECT, request.run_id)
    assert found == request.version


OWNED: Final[dict[str, Any]] = {
    "children that ended": children.sweep,
    "the newest request": newest_request,
}
"""What the owner alone may call."""


@pytest.mark.parametrize("login", ["owner", "granted"])
async def test_a_list_reads_nothing_that_it_does_not_show(
    unverified_database: str,
    login: str,
    monkeypatch: pytest.MonkeyPatch,
    subtests: pytest.Subtests,
) -> None:
    monkeypatch.setenv("RUNFOLD_POOL_SIZE", "1")
    superuser = await asyncpg.connect(driver_url(unverified_database))
    for table in (
        "access_grant",
        "archive_event",
        "role_event",
        "api_token",
        "user_account",
        "event",
        "schedule",
    ):
        await superuser.execute(f"ALTER TABLE ledger.{table} DISABLE TRIGGER ALL")
    await superuser.execute(FILL)
    await superuser.execute("ANALYZE")
    await superuser.execute(LONG)
    await superuser.execute("SELECT pg_stat_force_next_flush()")
    every = ("read", "audit", "admin", "work")
    async with (
        with_login(unverified_database, *ROLES, rights=every, project="*") as granted,
        Ledger.open(granted if login == "granted" else unverified_database, PROJECT) as ledger,
    ):
        for name, call in (CALLS | (OWNED if login == "owner" else {})).items():
            with subtests.test(name):
                await ledger.pool.execute("SELECT pg_stat_force_next_flush()")
                before = await superuser.fetchval(READ)
                await call(ledger)
                await ledger.pool.execute("SELECT pg_stat_force_next_flush()")
                assert await superuser.fetchval(READ) - before < MOST
    await superuser.close()
