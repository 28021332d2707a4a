"""Verifying finds what a superuser does to events and payloads behind the ledger's back."""

from __future__ import annotations

import asyncpg
import pytest

from runfold.ledger import Ledger
from runfold.ledger.lifecycle import MOVES
from runfold.ledger.proof.chain import may_follow
from runfold.ledger.proof.encoding import FIELDS, event_hash
from runfold.projections.state.legal import is_type_sql, legal_sql
from tests.support.databases import PROJECT
from tests.support.mallory import Mallory, first_finding, mallory, open_ledger, six_events

__all__ = ["mallory", "open_ledger"]


@pytest.mark.parametrize(
    "change",
    [
        """body = '{"input":{"path":"b.py"}}'""",
        """body = '{"input": {"path":"a.py"}}'""",
        "salt = sha256('')",
    ],
)
async def test_a_changed_payload_is_found(
    open_ledger: Ledger, mallory: Mallory, change: str
) -> None:
    run_id = await six_events(open_ledger)

    await mallory.execute(
        f"UPDATE ledger.payload SET {change} WHERE run_id = $1 AND version = 1", run_id
    )

    assert await first_finding(open_ledger, run_id) == (1, "payload")


async def test_a_deleted_payload_is_found(open_ledger: Ledger, mallory: Mallory) -> None:
    run_id = await six_events(open_ledger)

    await mallory.execute("DELETE FROM ledger.payload WHERE run_id = $1 AND version = 4", run_id)

    assert await first_finding(open_ledger, run_id) == (4, "payload")


async def test_a_payload_that_is_moved_to_another_event_is_found(
    open_ledger: Ledger, mallory: Mallory
) -> None:
    run_id = await six_events(open_ledger)

    await mallory.execute(
        "UPDATE ledger.payload SET version = 3 WHERE run_id = $1 AND version = 4", run_id
    )

    assert await first_finding(open_ledger, run_id) == (3, "payload")


async def test_a_payload_that_belongs_to_no_event_is_found(
    open_ledger: Ledger, mallory: Mallory
) -> None:
    run_id = await six_events(open_ledger)

    await mallory.execute(
        "INSERT INTO ledger.payload VALUES ($1, $2, 99, sha256(''), '{\"note\":\"forged\"}')",
        PROJECT,
        run_id,
    )

    assert (await first_finding(open_ledger, run_id))[1] == "payload"


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


@pytest.mark.parametrize("version", [1, 3, 5])
async def test_a_change_of_any_fact_of_any_event_is_found(
    open_ledger: Ledger, mallory: Mallory, version: int
) -> None:
    run_id = await six_events(open_ledger)
    await mallory.execute("CREATE TABLE backup AS SELECT * FROM ledger.event")
    one = f"e.run_id = '{run_id}' AND e.version = {version}"
    results = {}

    for column, how in FIELDS:
        if column not in {"project_id", "run_id", "version"}:
            value = OTHER.get(column, CHANGES[how].format(column))
            await mallory.execute(f"UPDATE ledger.event AS e SET {column} = {value} WHERE {one}")
            findings = (await open_ledger.verify()).findings
            results[column] = (
                (findings[0].run_id, findings[0].version, findings[0].problem) if findings else None
            )
            await mallory.execute(
                f"UPDATE ledger.event AS e SET {column} = b.{column} FROM backup AS b "
                f"WHERE {one} AND b.run_id = e.run_id AND b.version = e.version"
            )

    assert len(results) == len(FIELDS) - 3
    assert results == dict.fromkeys(results, (run_id, version, "hash"))
    assert (await open_ledger.verify()).ok


async def test_a_fact_that_is_taken_away_is_found(open_ledger: Ledger, mallory: Mallory) -> None:
    run_id = await six_events(open_ledger)

    await mallory.execute(
        "UPDATE ledger.event SET deadline = NULL, key = NULL WHERE run_id = $1 AND version = 1",
        run_id,
    )

    assert await first_finding(open_ledger, run_id) == (1, "hash")


async def test_a_changed_type_is_found(open_ledger: Ledger, mallory: Mallory) -> None:
    run_id = await six_events(open_ledger)

    await mallory.execute(
        "UPDATE ledger.event SET type = 'run.failed' WHERE run_id = $1 AND version = 6", run_id
    )

    assert await first_finding(open_ledger, run_id) == (6, "hash")


async def test_a_changed_hash_is_found(open_ledger: Ledger, mallory: Mallory) -> None:
    run_id = await six_events(open_ledger)

    await mallory.execute(
        "UPDATE ledger.event SET hash = sha256(hash) WHERE run_id = $1 AND version = 3", run_id
    )

    assert await first_finding(open_ledger, run_id) == (3, "hash")


@pytest.mark.parametrize(("version", "first"), [(1, 2), (3, 4), (5, 6)])
async def test_a_deleted_event_is_found(
    open_ledger: Ledger, mallory: Mallory, version: int, first: int
) -> None:
    run_id = await six_events(open_ledger)

    await mallory.execute(
        "DELETE FROM ledger.event WHERE run_id = $1 AND version = $2", run_id, version
    )

    assert await first_finding(open_ledger, run_id) == (first, "gap")


async def test_a_deleted_newest_event_is_found(open_ledger: Ledger, mallory: Mallory) -> None:
    run_id = await six_events(open_ledger)

    await mallory.execute("DELETE FROM ledger.event WHERE run_id = $1 AND version = 6", run_id)
    _, problem = await first_finding(open_ledger, run_id)

    assert problem == "drift"
    assert "version is 6, its events say 5" in (await open_ledger.verify()).findings[0].detail


async def test_a_deleted_history_is_found(open_ledger: Ledger, mallory: Mallory) -> None:
    run_id = await six_events(open_ledger)

    await mallory.execute("DELETE FROM ledger.event WHERE run_id = $1", run_id)

    assert await first_finding(open_ledger, run_id) == (None, "drift")


async def test_two_events_that_changed_places_are_found(
    open_ledger: Ledger, mallory: Mallory
) -> None:
    run_id = await six_events(open_ledger)

    for old, new in ((3, 99), (4, 3), (99, 4)):
        await mallory.execute(
            "UPDATE ledger.event SET version = $3 WHERE run_id = $1 AND version = $2",
            run_id,
            old,
            new,
        )

    assert (await first_finding(open_ledger, run_id))[0] == 3


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


@pytest.mark.parametrize("time", ["294000-01-01", "4000-01-01 BC"])
async def test_a_time_that_python_cannot_hold_is_found_and_named(
    open_ledger: Ledger, mallory: Mallory, time: str
) -> None:
    run_id = await six_events(open_ledger)
    await mallory.execute(
        "UPDATE ledger.event SET recorded_at = $2::text::timestamptz "
        "WHERE run_id = $1 AND version = 3",
        run_id,
        time,
    )

    assert await first_finding(open_ledger, run_id) == (3, "unreadable")


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
