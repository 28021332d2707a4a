"""Verifying finds what a superuser does to events and payloads behind the ledger's back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg
import pytest

from runfold.ledger import Ledger
from runfold.ledger.lifecycle import MOVES
from runfold.ledger.proof.chain import may_follow
from runfold.ledger.proof.encoding import FIELDS, event_hash
from runfold.projections.state.legal import is_type_sql, legal_sql
from tests.support.damage import keep, undone
from tests.support.databases import PROJECT
from tests.support.mallory import Mallory, first_finding, mallory, open_ledger, six_events

__all__ = ["mallory", "open_ledger"]


KEPT = ("event", "payload")


class Damage(NamedTuple):
    """Statements, and what the first finding says of them."""

    statements: str
    version: int | None
    problem: str
    detail: str = ""


OF_THE_RUN = "WHERE run_id = '{run}' AND version"
DAMAGE = {
    "a changed payload": Damage(
        f"""UPDATE ledger.payload SET body = '{{{{"input":{{{{}}}}}}}}' {OF_THE_RUN} = 1""",
        1,
        "payload",
    ),
    "a payload with a blank more": Damage(
        f"UPDATE ledger.payload SET body = replace(body::text, ':', ': ')::json {OF_THE_RUN} = 1",
        1,
        "payload",
    ),
    "another salt": Damage(
        f"UPDATE ledger.payload SET salt = sha256('') {OF_THE_RUN} = 1", 1, "payload"
    ),
    "no payload": Damage(f"DELETE FROM ledger.payload {OF_THE_RUN} = 4", 4, "payload"),
    "a payload at another event": Damage(
        f"UPDATE ledger.payload SET version = 3 {OF_THE_RUN} = 4", 3, "payload"
    ),
    "a payload of no event": Damage(
        "INSERT INTO ledger.payload VALUES ('test', '{run}', 99, sha256(''), '{{}}')",
        99,
        "payload",
    ),
    "two facts less": Damage(
        f"UPDATE ledger.event SET deadline = NULL, key = NULL {OF_THE_RUN} = 1", 1, "hash"
    ),
    "another type": Damage(
        f"UPDATE ledger.event SET type = 'run.failed' {OF_THE_RUN} = 6", 6, "hash"
    ),
    "another hash": Damage(
        f"UPDATE ledger.event SET hash = sha256(hash) {OF_THE_RUN} = 3", 3, "hash"
    ),
    "no first event": Damage(f"DELETE FROM ledger.event {OF_THE_RUN} = 1", 2, "gap"),
    "no third event": Damage(f"DELETE FROM ledger.event {OF_THE_RUN} = 3", 4, "gap"),
    "no last event but one": Damage(f"DELETE FROM ledger.event {OF_THE_RUN} = 5", 6, "gap"),
    "no newest event": Damage(
        f"DELETE FROM ledger.event {OF_THE_RUN} = 6",
        None,
        "drift",
        "version is 6, its events say 5",
    ),
    "no event": Damage(f"DELETE FROM ledger.event {OF_THE_RUN} > 0", None, "drift"),
    "two events in each other's place": Damage(
        f"UPDATE ledger.event SET version = 99 {OF_THE_RUN} = 3;"
        f"UPDATE ledger.event SET version = 3 {OF_THE_RUN} = 4;"
        f"UPDATE ledger.event SET version = 4 {OF_THE_RUN} = 99",
        3,
        "hash",
    ),
    "a time later than those of Python": Damage(
        f"UPDATE ledger.event SET recorded_at = '294000-01-01' {OF_THE_RUN} = 3", 3, "unreadable"
    ),
    "a time earlier than those of Python": Damage(
        f"UPDATE ledger.event SET recorded_at = '4000-01-01 BC' {OF_THE_RUN} = 3", 3, "unreadable"
    ),
}


@pytest.fixture
async def run_id(open_ledger: Ledger) -> UUID:
    """A run of six events, among others."""
    return await six_events(open_ledger)


@pytest.fixture
async def unguarded(
    unverified_database: str,
    mallory: Mallory,
    run_id: UUID,
) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A connection to the database with that run, in which every guard is off."""
    await mallory.execute("SELECT")
    connection = await asyncpg.connect(unverified_database)
    yield connection
    await connection.close()


async def test_what_is_done_to_an_event_or_a_payload_is_found(
    open_ledger: Ledger,
    run_id: UUID,
    unguarded: asyncpg.Connection[Any],
    subtests: pytest.Subtests,
) -> None:
    await keep(unguarded, KEPT)

    for what, damage in DAMAGE.items():
        with subtests.test(what):
            async with undone(unguarded, KEPT):
                await unguarded.execute(damage.statements.format(run=run_id))
                found = await first_finding(open_ledger, run_id)
                [first, *_] = (await open_ledger.verify(run_id)).findings
            assert found == (damage.version, damage.problem)
            assert damage.detail in first.detail

    assert (await open_ledger.verify()).ok


CHANGES = {
    "text": "CASE WHEN {0} IS NULL THEN 'x' ELSE {0} || 'x' END",
    "int": "coalesce({0} + 1, 1)",
    "time": "coalesce({0} + interval '1 microsecond', now())",
    "money": "coalesce({0} + 0.000001, 0)",
    "bytes": "coalesce(sha256({0}), sha256(''))",
    "list": "array_append({0}, 'x')",
    "flag": "NOT coalesce({0}, false)",
}
OTHER = {"wait_outcome": "'timeout'"}


async def test_a_change_of_any_fact_of_any_event_is_found(
    open_ledger: Ledger,
    run_id: UUID,
    unguarded: asyncpg.Connection[Any],
    subtests: pytest.Subtests,
) -> None:
    await unguarded.execute("CREATE TABLE backup AS SELECT * FROM ledger.event")
    facts = {name: how for name, how in FIELDS if name not in {"project_id", "run_id", "version"}}
    assert len(facts) == len(FIELDS) - 3

    for version in (1, 3, 5):
        one = f"e.run_id = '{run_id}' AND e.version = {version}"
        for name, how in facts.items():
            value = OTHER.get(name, CHANGES[how].format(name))
            await unguarded.execute(f"UPDATE ledger.event AS e SET {name} = {value} WHERE {one}")
            findings = (await open_ledger.verify()).findings
            await unguarded.execute(
                f"UPDATE ledger.event AS e SET {name} = b.{name} FROM backup AS b "
                f"WHERE {one} AND b.run_id = e.run_id AND b.version = e.version"
            )
            with subtests.test(name, version=version):
                first = findings[0]
                assert (first.run_id, first.version, first.problem) == (run_id, version, "hash")
    assert (await open_ledger.verify()).ok


async def test_a_legal_event_with_a_hash_of_its_own_making_is_found(
    open_ledger: Ledger, unverified_database: str
) -> None:
    run_id = await six_events(open_ledger)
    owner = await asyncpg.connect(unverified_database)

    await owner.execute(
        "INSERT INTO ledger.event (project_id, run_id, version, recorded_at, type, actor, hash) "
        "VALUES ($1, $2, 7, now(), 'note.added', 'mallory', sha256(''))",
        PROJECT,
        run_id,
    )
    await owner.close()

    assert await first_finding(open_ledger, run_id) == (7, "hash")


async def test_a_row_that_cannot_be_read_is_named_and_the_rest_is_checked(
    open_ledger: Ledger, mallory: Mallory
) -> None:
    run_id = await six_events(open_ledger)
    await mallory.execute("UPDATE ledger.event SET actor = 'eve' WHERE actor = 'w:after'")
    await mallory.execute("""
      CREATE FUNCTION public.torn() RETURNS json LANGUAGE plpgsql AS $$ BEGIN
        RAISE EXCEPTION 'invalid page in block 7' USING ERRCODE = 'XX001';
      END $$""")
    await mallory.execute(f"""
      ALTER TABLE ledger.payload RENAME TO true_payload;
      CREATE VIEW ledger.payload AS SELECT project_id, run_id, version, salt,
        CASE run_id WHEN '{run_id}' THEN public.torn() ELSE body END AS body
      FROM ledger.true_payload""")

    report = await open_ledger.verify()

    [torn, changed] = report.findings
    assert (torn.run_id, torn.problem) == (run_id, "unreadable")
    assert "invalid page in block 7" in torn.detail
    assert (changed.problem, report.runs) == ("hash", 2)


async def test_an_illegal_event_with_a_true_hash_is_found(
    open_ledger: Ledger, mallory: Mallory
) -> None:
    run_id = await six_events(open_ledger)
    *_, last = await open_ledger.history(run_id)
    at = last.recorded_at
    facts = {
        "project_id": PROJECT, "run_id": run_id, "version": last.version + 1, "recorded_at": at,
        "type": "run.completed", "schema_version": 1, "actor": "mallory", "state": "completed",
    }  # fmt: skip
    await mallory.execute(
        "INSERT INTO ledger.event (project_id, run_id, version, recorded_at, type, schema_version, "
        "actor, state, hash) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        *facts.values(),
        event_hash(last.hash, facts),
    )

    assert await first_finding(open_ledger, run_id) == (last.version + 1, "illegal")


def test_an_event_that_moves_no_run_names_no_state() -> None:
    assert may_follow("acme.note", "running", None)
    assert not may_follow("acme.note", "running", "completed")
    assert not may_follow("acme.note", "completed", None)
    assert not may_follow("acme.note", None, None)
    assert not may_follow("run.submitted", "running", "pending")
    assert not may_follow("run.submitted", "running", None)
    assert not may_follow("run.unheard_of", "running", None)


async def test_events_of_a_type_that_only_newer_code_knows_are_shown_and_named(
    open_ledger: Ledger,
) -> None:
    with pytest.MonkeyPatch.context() as newer:
        newer.setitem(MOVES, "note.pinned", MOVES["note.added"])
        await open_ledger.pool.execute(legal_sql())
        await open_ledger.pool.execute(is_type_sql())
    run = await open_ledger.submit("parse")
    assert await open_ledger.pool.fetchval(_PINNED, PROJECT, run.run_id) == 2

    [lease] = await open_ledger.claim("w:1", ttl=600)
    await open_ledger.complete(lease)

    assert [event.type for event in await open_ledger.history(run.run_id)] == [
        "run.submitted", "note.pinned", "lease.acquired", "run.completed"
    ]  # fmt: skip
    report = await open_ledger.verify()
    assert [(found.version, found.problem) for found in report.findings] == [(2, "unknown")]
    assert "note.pinned: verify with the newest version" in report.findings[0].detail


_PINNED = """
SELECT version FROM ledger.append($1, 'ann', ARRAY[$2::uuid], ARRAY[NULL::int],
  ARRAY['note.pinned'], ARRAY[1], ARRAY[NULL], ARRAY[NULL], ARRAY['{"text": "x"}'],
  ARRAY[NULL::numeric], ARRAY[NULL::int], ARRAY[NULL::int], ARRAY[NULL])
"""
