"""Verifying finds what is wrong with states, keys and lists, the first bad event first."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from runfold.ledger import Ledger, State
from runfold.ledger.errors import LedgerError, RunNotFound
from runfold.ledger.events import NoteAdded
from runfold.ledger.months import FIRST_RUN, LAST_RUN
from runfold.ledger.reading import key_checks, snapshot, tag_checks
from runfold.ledger.reading import verify as verifying
from runfold.projections.state import drift
from runfold.projections.state.repair import repair
from tests.support.damage import keep, undone
from tests.support.databases import PROJECT
from tests.support.mallory import Mallory, first_finding, mallory, open_ledger, six_events
from tests.support.runs import TINY, claimed
from tests.support.snapshots import held_snapshots
from tests.support.waiting import lapsed

__all__ = ["mallory", "open_ledger"]


async def test_an_untouched_ledger_verifies_and_says_what_was_checked(ledger: Ledger) -> None:
    await six_events(ledger)

    report = await ledger.verify()

    assert report.ok
    assert (report.runs, report.events, report.payloads, report.erased, report.findings) == (
        3,
        10,
        6,
        0,
        (),
    )
    with pytest.raises(RunNotFound):
        await ledger.verify("01890000-0000-7000-8000-000000000000")


async def test_every_kind_of_history_verifies(ledger: Ledger) -> None:
    odd = 'ü"\\東京 \N{ROCKET}'
    lease = await claimed(
        ledger, odd, ttl=TINY, input={odd: [odd]}, key=odd, tags=[odd, "\\", '"', "\u2028"]
    )
    await ledger.append(lease, NoteAdded(text="line\nbreak\u2028\x7f"), actor=odd)
    await ledger.transition(
        lease, State.WAITING_TOOL, name=odd, cost_usd_delta=1e-6, step_count_delta=1
    )
    await lapsed(ledger, lease)
    await ledger.reap()

    assert (await ledger.verify()).ok


async def test_a_state_that_differs_from_its_events_is_found(
    open_ledger: Ledger, mallory: Mallory
) -> None:
    run_id = await six_events(open_ledger)
    await mallory.execute("CREATE TABLE backup AS SELECT * FROM ledger.run_state")
    changes = {
        "cost_usd": "cost_usd = 7",
        "state": "state = 'failed'",
        "attempt_count": "attempt_count = 0",
        "worker_id": "worker_id = 'x', token = 9, lease_until = now(), state = 'running'",
        "tags": "tags = '{}'",
        "deadline": "deadline = NULL",
        "hash": "hash = sha256('')",
        "completed_at": "completed_at = completed_at + interval '1 microsecond'",
    }

    for named, change in changes.items():
        await mallory.execute(f"UPDATE ledger.run_state SET {change} WHERE run_id = $1", run_id)
        assert await first_finding(open_ledger, run_id) == (None, "drift")
        assert named in (await open_ledger.verify()).findings[0].detail
        await mallory.execute("DELETE FROM ledger.run_state WHERE run_id = $1", run_id)
        await mallory.execute(
            "INSERT INTO ledger.run_state SELECT * FROM backup WHERE run_id = $1", run_id
        )

    assert (await open_ledger.verify()).ok


async def test_a_deleted_state_is_found(open_ledger: Ledger, mallory: Mallory) -> None:
    run_id = await six_events(open_ledger)

    await mallory.execute("DELETE FROM ledger.run_state WHERE run_id = $1", run_id)
    findings = (await open_ledger.verify()).findings

    assert {(finding.run_id, finding.problem) for finding in findings} == {
        (run_id, "drift"),
        (run_id, "tag"),  # it is in lists of what is no run
    }


async def test_an_idempotency_key_that_is_not_what_its_event_says_is_found(
    unverified_database: str, open_ledger: Ledger, subtests: pytest.Subtests
) -> None:
    run_id = await six_events(open_ledger)
    superuser = await asyncpg.connect(unverified_database)
    await superuser.execute("ALTER TABLE ledger.command DISABLE TRIGGER ALL")
    await keep(superuser, ["command"])
    changes = {
        "DELETE FROM ledger.command": [1],
        "UPDATE ledger.command SET version = 2": [1, 2],
        "UPDATE ledger.command SET hash = sha256('other')": [1],
    }

    for change, versions in changes.items():
        with subtests.test(change):
            async with undone(superuser, ["command"]):
                await superuser.execute(f"{change} WHERE run_id = $1", run_id)
                assert await first_finding(open_ledger, run_id) == (1, "key")
                findings = (await open_ledger.verify()).findings
            assert [(one.version, one.problem) for one in findings] == [
                (version, "key") for version in versions
            ]
    assert (await open_ledger.verify()).ok
    await superuser.close()


async def test_an_idempotency_key_that_nobody_used_is_found(
    open_ledger: Ledger, mallory: Mallory
) -> None:
    run_id = await six_events(open_ledger)

    await mallory.execute(
        "INSERT INTO ledger.command SELECT project_id, 'forged', content_hash, run_id, 1 "
        "FROM ledger.command WHERE run_id = $1",
        run_id,
    )

    [finding] = (await open_ledger.verify()).findings
    assert (finding.run_id, finding.problem) == (run_id, "key")
    assert "'forged' belongs to no such event" in finding.detail


async def test_of_several_bad_events_the_first_is_named_first(
    open_ledger: Ledger, mallory: Mallory
) -> None:
    run_id = await six_events(open_ledger)

    await mallory.execute("DELETE FROM ledger.payload WHERE run_id = $1 AND version = 1", run_id)
    await mallory.execute(
        "UPDATE ledger.event SET actor = 'mallory' WHERE run_id = $1 AND version >= 3", run_id
    )
    findings = (await open_ledger.verify()).findings

    assert [finding.version for finding in findings] == [1, 3, 4, 5, 6]


async def test_a_flood_of_bad_events_is_cut_at_a_hundred_findings(
    open_ledger: Ledger, mallory: Mallory
) -> None:
    await open_ledger.submit_many([{"kind": "parse"}] * 150)

    await mallory.execute("UPDATE ledger.event SET actor = 'mallory'")
    report = await open_ledger.verify()

    assert (len(report.findings), report.more, report.events, report.ok) == (100, 50, 150, False)


async def test_a_flood_of_bad_events_of_one_run_is_counted(
    open_ledger: Ledger, mallory: Mallory
) -> None:
    lease = await claimed(open_ledger)
    for _ in range(118):
        await open_ledger.append(lease, NoteAdded(text="x"))

    await mallory.execute("UPDATE ledger.event SET actor = 'mallory'")
    report = await open_ledger.verify()

    assert (len(report.findings), report.more, report.events) == (100, 20, 120)


async def test_a_project_is_verified_range_by_range_and_nothing_is_left_out(
    open_ledger: Ledger, mallory: Mallory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "EVENTS_A_RANGE", 7)
    await open_ledger.submit_many([{"kind": "parse", "key": f"{n}"} for n in range(40)])
    await open_ledger.claim("w:1", limit=13)
    assert (await open_ledger.verify()).ok

    await mallory.execute("UPDATE ledger.run_state SET priority = priority + 1")
    report = await open_ledger.verify()

    assert (report.runs, report.events, len(report.findings)) == (40, 53, 40)
    assert len({finding.run_id for finding in report.findings}) == 40


async def test_a_fold_of_the_database_that_lies_is_not_believed(
    open_ledger: Ledger, mallory: Mallory
) -> None:
    run_id = await six_events(open_ledger)
    await mallory.execute("UPDATE ledger.run_state SET cost_usd = 7 WHERE run_id = $1", run_id)
    await mallory.execute("""
      CREATE OR REPLACE FUNCTION ledger.rebuild_run_state(
        p_project text, p_from uuid, p_to uuid,
        p_version int DEFAULT NULL, p_time timestamptz DEFAULT NULL
      ) RETURNS SETOF ledger.run_state LANGUAGE sql STABLE AS $$
        SELECT * FROM ledger.run_state AS r
        WHERE r.project_id = p_project AND r.run_id BETWEEN p_from AND p_to
      $$""")

    assert await first_finding(open_ledger, run_id) == (None, "drift")
    assert [one.run_id async for one in drift.check(open_ledger)] == [run_id]
    with pytest.raises(LedgerError, match="own fold is not this program's"):
        await repair(open_ledger, [run_id], actor="ann", reason="a test")


async def test_a_view_that_says_all_months_are_archived_hides_nothing(
    open_ledger: Ledger, mallory: Mallory
) -> None:
    run_id = await six_events(open_ledger)
    await mallory.execute("""
      CREATE OR REPLACE VIEW ledger.archive AS
      SELECT '2026-01'::varchar(7) AS month, 'detached' AS state, true AS detached,
        now() AS recorded_at, 'eve'::varchar(200) AS actor, NULL AS reason,
        '00000000-0000-0000-0000-000000000000'::uuid AS first,
        'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid AS beyond, 1::bigint AS runs,
        1::bigint AS events, 1::bigint AS payloads, 1 AS generation, 1::bigint AS last_position,
        NULL::xid8 AS last_txid, 1::bigint AS size_bytes, ''::bytea AS sha256, 'x' AS file""")

    for change in (
        "UPDATE ledger.run_state SET cost_usd = 7 WHERE run_id = $1",
        "DELETE FROM ledger.event WHERE run_id = $1 AND version > 1",
    ):
        await mallory.execute(change, run_id)
        problems = {finding.problem for finding in (await open_ledger.verify()).findings}
        assert "drift" in problems
    assert {"drift", "payload"} <= problems
    assert [one.run_id async for one in drift.check(open_ledger)] == [run_id]


async def test_a_view_that_hides_events_hides_nothing_from_verify(
    open_ledger: Ledger, mallory: Mallory
) -> None:
    run_id = await six_events(open_ledger)
    await mallory.execute("UPDATE ledger.event SET actor = 'eve' WHERE run_id = $1", run_id)
    await mallory.execute("""DO $$ BEGIN EXECUTE format(
      'CREATE OR REPLACE VIEW ledger.entry AS SELECT * FROM (%s) AS m WHERE false',
      rtrim(pg_get_viewdef('ledger.entry'), ';')); END $$""")

    assert (await first_finding(open_ledger, run_id))[1] == "hash"


async def test_no_snapshot_is_held_from_range_to_range(
    ledger: Ledger, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ledger.submit_many([{"kind": "parse", "key": f"{n}"} for n in range(8)])
    held, expected = [], await ledger.verify()

    async def watched(*arguments: Any) -> AsyncIterator[Any]:
        async for part in snapshot.ranges(*arguments):
            held.append(await held_snapshots(connection))
            yield part

    monkeypatch.setattr(snapshot, "EVENTS_A_RANGE", 2)
    monkeypatch.setattr(verifying, "ranges", watched)

    done: list[int] = []
    pool, project_id = ledger.pool, ledger.project_id
    assert await verifying.verify(pool, project_id, progress=done.append) == expected
    monkeypatch.undo()
    assert done == sorted(done)
    assert done[-1] == expected.events  # what is said to be done was read
    assert len(held) > 2
    assert set(held) == {0}


KINDS = ("kind", "kind_event", "kind_state")
WRONG_KINDS = {
    "UPDATE ledger.kind_state SET paused = false": "not the fold of its events",
    "UPDATE ledger.kind_event SET type = 'kind.resumed' WHERE number = 4": (
        "not the fold of its events"
    ),
    "DELETE FROM ledger.kind_event WHERE number = 2": "not the fold of its events",
    "DELETE FROM ledger.kind_state": "has events, but no settings",
    "DELETE FROM ledger.kind_event": "has settings without an event",
    "UPDATE ledger.kind SET project_id = 'other'": "claims of all kinds pass it over",
}


async def test_a_kind_that_is_not_the_fold_of_its_events_is_found(
    unverified_database: str, open_ledger: Ledger, subtests: pytest.Subtests
) -> None:
    await six_events(open_ledger)
    await open_ledger.pause_kind("parse")
    await open_ledger.limit_kind("parse", 3)
    await open_ledger.resume_kind("parse")
    await open_ledger.pause_kind("parse")
    assert (await open_ledger.verify()).ok
    superuser = await asyncpg.connect(unverified_database)
    for table in KINDS:
        await superuser.execute(f"ALTER TABLE ledger.{table} DISABLE TRIGGER ALL")
    await keep(superuser, KINDS)

    for change, problem in WRONG_KINDS.items():
        with subtests.test(change):
            async with undone(superuser, KINDS):
                await superuser.execute(change)
                findings = (await open_ledger.verify()).findings
            assert any(one.problem == "kind" and problem in one.detail for one in findings)
    assert {one.problem for one in (await open_ledger.verify()).findings} <= {"control"}
    await superuser.close()


STRANGER = """
INSERT INTO ledger.run_tag SELECT project_id, tag, kind, gen_random_uuid()
FROM ledger.run_tag WHERE tag = 'one'
"""


WRONG_TAGS = {
    "DELETE FROM ledger.run_tag WHERE tag = 'one'": "missing in the list of its tag: 'one'",
    "UPDATE ledger.run_tag SET tag = 'other' WHERE tag = 'one'": "not have: 'other'",
    STRANGER: "not have: 'one'",
}


async def test_a_list_by_tag_that_hides_or_invents_a_run_is_found(
    unverified_database: str, open_ledger: Ledger, subtests: pytest.Subtests
) -> None:
    run = await open_ledger.submit("parse", tags=["one", "two", "one"])
    assert [one.run_id for one in await open_ledger.runs(tag="one")] == [run.run_id]
    superuser = await asyncpg.connect(unverified_database)
    await keep(superuser, ["run_tag"])

    for change, problem in WRONG_TAGS.items():
        assert (await open_ledger.verify()).ok
        with subtests.test(problem):
            async with undone(superuser, ["run_tag"]):
                await superuser.execute(change)
                findings = (await open_ledger.verify()).findings
            assert any(one.problem == "tag" and problem in one.detail for one in findings)
    await superuser.close()


async def test_of_very_many_runs_that_lists_by_tag_hide_the_first_are_named(
    open_ledger: Ledger, mallory: Mallory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tag_checks, "_PAGE", 2)
    monkeypatch.setattr(tag_checks, "_TOLD", 3)
    for _ in range(5):
        await open_ledger.submit("parse", tags=["one"])
    await mallory.execute("UPDATE ledger.run_tag SET tag = 'other'")

    findings = (await open_ledger.verify()).findings
    details = [one.detail.split(":")[0] for one in findings if one.problem == "tag"]
    assert details == [
        *["is missing in the list of its tag"] * 3,
        *["is in the list of a tag that it does not have"] * 3,
    ]


@pytest.mark.new_database
async def test_no_plan_joins_a_range_with_itself(
    ledger: Ledger, connection: asyncpg.Connection
) -> None:
    await ledger.submit_many([{"kind": "parse", "input": n, "key": f"{n}"} for n in range(300)])

    for statement in (verifying.EVENTS, key_checks.FORGOTTEN):
        plan = await connection.fetch(f"EXPLAIN {statement}", PROJECT, FIRST_RUN, LAST_RUN)
        assert not [line for (line,) in plan if "Join Filter" in line]
