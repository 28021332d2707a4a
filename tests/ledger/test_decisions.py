"""Decisions: who makes them, about what, and that no way leads around it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from runfold.ledger import Ledger, State
from runfold.ledger.errors import DecisionRefused, UnknownProject
from runfold.ledger.events import ApprovalGranted, ApprovalRequested, NoteAdded
from runfold.ledger.operations.decide import request
from runfold.ledger.postgres import schema
from runfold.ledger.postgres.urls import driver_url
from tests.conftest import PROJECT
from tests.support.decisions import decided
from tests.support.logins import grant, with_login
from tests.support.runs import claimed, newest, types
from tests.support.waiting import until

Connection = asyncpg.Connection
REVOKED = "SELECT ledger.change_access('test', 'tests', $1, '{}', NULL, NULL, NULL)"


def login_of(url: str) -> str:
    """Name the login of a database's URL."""
    return url.split("//")[1].split(":", maxsplit=1)[0]


@asynccontextmanager
async def connected(database: str, *rights: str) -> AsyncIterator[tuple[Connection, str]]:
    """Yield the connection and the name of a worker's login with these rights."""
    async with with_login(database, "runfold_worker", rights=rights) as url:
        connection = await asyncpg.connect(driver_url(url))
        yield connection, login_of(url)
        await connection.close()


async def asking(ledger: Ledger, *, park: bool = True, **conditions: Any) -> ApprovalRequested:
    """Have a run wait for an approval with these conditions; return its request."""
    lease = await claimed(ledger)
    content = request("Pay?", {"sum": 7}, **conditions)
    await ledger.transition(lease, State.WAITING_APPROVAL, park=park, content=content)
    return await newest(ledger, lease.run_id, ApprovalRequested)


async def test_only_a_credential_with_the_right_decides(database: str, ledger: Ledger) -> None:
    asked = await asking(ledger)
    async with connected(database, "submit", "work", "read", "audit") as (mallory, _):
        for type_ in ("approval.granted", "approval.rejected"):
            with pytest.raises(asyncpg.PostgresError, match="lacks the right decide") as refused:
                await decided(mallory, asked.run_id, asked.version, type=type_)
            assert refused.value.sqlstate == "RF403"
    async with connected(database, "decide") as (ann, _):
        kept = await decided(ann, asked.run_id, asked.version)

    assert kept is not None
    assert (kept["version"], kept["refused"]) == (asked.version + 1, None)


@pytest.mark.parametrize("park", [True, False])
async def test_nobody_decides_what_their_credential_asked_for_by_whatever_name(
    database: str, ledger: Ledger, *, park: bool
) -> None:
    rights = ("submit", "work", "read", "decide")
    async with (
        with_login(database, "runfold_worker", rights=rights) as url,
        Ledger.open(url, PROJECT) as agent,
    ):
        await ledger.submit("parse")
        [lease] = await agent.claim("w:1", ttl=60)
        asked = await agent.transition(lease, State.WAITING_APPROVAL, park=park)
        for actor in ("ann", "w:1", login_of(url)):
            with pytest.raises(DecisionRefused) as refused:
                await agent.approve(asked, actor=actor)
            assert refused.value.why == "asker"
    # The owner speaks for anybody, but for the worker itself.
    for actor in ("w:1", "W:1", "\uff37:1"):
        with pytest.raises(DecisionRefused) as refused:
            await ledger.reject(asked, actor=actor)
        assert refused.value.why == "asker"

    await ledger.approve(asked, actor="ann")


async def test_a_worker_that_asks_in_another_name_is_still_the_holder(ledger: Ledger) -> None:
    lease = await claimed(ledger)
    asked = await ledger.transition(lease, State.WAITING_APPROVAL, park=True, actor="zoe")

    for actor in ("zoe", "w:1"):
        with pytest.raises(DecisionRefused) as refused:
            await ledger.approve(asked, actor=actor)
        assert refused.value.why == "asker"


async def test_one_credential_is_one_person_where_another_must_decide(
    database: str, ledger: Ledger
) -> None:
    async with (
        with_login(database, "runfold_worker", rights=("submit", "decide", "read")) as url,
        Ledger.open(url, PROJECT) as mallory,
    ):
        await mallory.submit("parse", actor="mallory")
        [lease] = await ledger.claim("w:1", ttl=60)
        content = request("Pay?", other_person=True)
        asked = await ledger.transition(lease, State.WAITING_APPROVAL, park=True, content=content)
        with pytest.raises(DecisionRefused) as refused:
            await mallory.approve(asked, actor="somebody else")

    assert refused.value.why == "submitter"


ALIKE = (
    "Jo Strauß", "JO STRAUSS", "jo  strauss", "\uff2ao Strauss", "Jo\u00a0Strauss",
    "Jo\u200c Strauss", "Jo Stra\u00aduss", "Jo Strauss\ufe0f", "Jo Strauss\U000e0041",
    "\u3164Jo Strauss", "Jo Strau\u017fs",
)  # fmt: skip


async def test_no_look_alike_passes_for_another_person(ledger: Ledger) -> None:
    await ledger.submit("parse", actor="Jo Strauss")
    [lease] = await ledger.claim("w:1", ttl=60)
    content = request("Pay?", other_person=True)
    asked = await ledger.transition(lease, State.WAITING_APPROVAL, park=True, content=content)

    for name in ALIKE:
        kept = await decided(ledger.pool, asked.run_id, asked.version, actor=name)
        assert kept is not None, name
        assert kept["refused"] == "submitter", name
    assert (await ledger.approve(asked, actor="Jo Straus")).available_at is not None


async def test_look_alikes_are_told_in_a_database_whose_locale_knows_ascii_only(
    ledger: Ledger, connection: Connection
) -> None:
    name = f"ascii_{asked_at()}"
    await connection.execute(
        f"CREATE DATABASE {name} TEMPLATE template0 LOCALE_PROVIDER libc LOCALE 'C'"
    )
    try:
        other = await asyncpg.connect(driver_url(str(ledger.url)), database=name)
        await other.execute("CREATE SCHEMA ledger")
        await other.execute(schema.sql("guards/person"))
        assert await other.fetchval("SELECT lower('Ä') = 'Ä'")
        assert await other.fetchval("SELECT ledger.person('ÄDA') = ledger.person('äda')")
        await other.close()
    finally:
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def asked_at() -> str:
    """Return a name that no other test has."""
    return f"{id(object()):x}"


@pytest.mark.parametrize("level", ["repeatable_read", "serializable"])
async def test_a_revoked_member_decides_nothing_from_an_old_snapshot(
    database: str, ledger: Ledger, level: Any
) -> None:
    asked = await asking(ledger, role="finance")
    await ledger.grant_role("finance", "ann")
    async with connected(database, "decide", "read") as (ann, login):
        transaction = ann.transaction(isolation=level)
        await transaction.start()
        members = "SELECT member FROM ledger.role_member"
        assert await ann.fetchval(members) == "ann"
        await ledger.revoke_role("finance", "ann", reason="left")
        assert await ann.fetchval(members) == "ann"  # in its old snapshot
        with pytest.raises(asyncpg.PostgresError, match="read committed") as refused:
            await decided(ann, asked.run_id, asked.version)
        assert refused.value.sqlstate == "25001"
        await transaction.rollback()
        assert (await decided(ann, asked.run_id, asked.version))["refused"] == "role"  # type: ignore[index]

        # Nor by a function that keeps the snapshot of its caller.
        await ann.execute(
            "CREATE FUNCTION pg_temp.quiet(r uuid, v int) RETURNS text STABLE LANGUAGE sql AS "
            "'SELECT refused FROM ledger.decide(''test'', ''ann'', r, ''approval.granted'', v, "
            "NULL, NULL, NULL, NULL)'"
        )
        quiet = await ann.fetchval("SELECT pg_temp.quiet($1, $2)", asked.run_id, asked.version)
        assert quiet == "role"
        await ledger.pool.execute(REVOKED, login)
        with pytest.raises(asyncpg.PostgresError, match="has no access"):
            await decided(ann, asked.run_id, asked.version)

    assert "approval.granted" not in await types(ledger, asked.run_id)


async def test_a_right_that_is_revoked_while_its_decision_waits_decides_nothing(
    database: str, ledger: Ledger, connection: Connection
) -> None:
    asked = await asking(ledger)
    async with connected(database, "decide") as (ann, login):
        locked = connection.transaction()
        await locked.start()
        await connection.execute("SELECT FROM ledger.run_state FOR UPDATE")
        deciding = asyncio.create_task(decided(ann, asked.run_id, asked.version))
        waits = "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        await until(lambda: connection.fetchval(f"{waits} AND datname = current_database()"))
        await ledger.pool.execute(REVOKED, login)
        await locked.rollback()

        with pytest.raises(asyncpg.PostgresError) as refused:
            await deciding
    assert refused.value.sqlstate == "RF404"
    assert "approval.granted" not in await types(ledger, asked.run_id)


async def test_the_event_holds_who_decided_what_and_what_it_stands_for(
    database: str, ledger: Ledger
) -> None:
    asked = await asking(ledger)
    async with connected(database, "decide") as (ann, login):
        shown = asked.shown_sha256
        await decided(ann, asked.run_id, asked.version, shown=shown, meaning="reviewed")

    granted = await newest(ledger, asked.run_id, ApprovalGranted)
    assert (granted.actor, granted.credential, granted.meaning) == ("ann", login, "reviewed")
    assert (granted.request, granted.shown_sha256) == (asked.version, asked.shown_sha256)


async def test_the_right_to_decide_alone_is_enough_and_reads_no_content(
    database: str, ledger: Ledger
) -> None:
    asked = await asking(ledger)
    async with (
        with_login(database, "runfold_worker", rights=("decide",)) as url,
        Ledger.open(url, PROJECT) as ann,
    ):
        run = await ann.approve(asked, actor="ann")

    assert (run.version, run.input, run.output) == (asked.version + 1, None, None)


async def test_one_credential_cannot_use_up_the_notes_of_refused_decisions(
    database: str, ledger: Ledger
) -> None:
    asked = await asking(ledger, role="finance")
    for number in range(12):
        await decided(ledger.pool, asked.run_id, asked.version, actor=f"somebody {number}")
    async with connected(database, "decide") as (ann, login):
        refused = await decided(ann, asked.run_id, asked.version, body='{"reason": "due today"}')

    assert refused is not None
    assert refused["refused"] == "role"
    notes = [e for e in await ledger.history(asked.run_id) if isinstance(e, NoteAdded)]
    assert [note.credential for note in notes[-2:]] == ["postgres", login]
    assert (len(notes), notes[-1].name) == (11, "decision refused")
    assert notes[-1].text == (
        "decision refused, yes: ann does not have the role 'finance' (the reason given: due today)"
    )


async def test_a_key_belongs_to_a_decision_of_one_person_on_one_request(ledger: Ledger) -> None:
    asked = await asking(ledger)
    first = await decided(ledger.pool, asked.run_id, asked.version, key="click")

    assert first is not None
    assert first["refused"] is None
    again = await decided(ledger.pool, asked.run_id, asked.version, key="click")
    assert again is not None
    assert (again["version"], again["refused"]) == (None, "key")
    assert (await types(ledger, asked.run_id)).count("approval.granted") == 1


async def test_a_login_of_another_project_cannot_tell_a_request_from_none(
    database: str, ledger: Ledger, connection: Connection
) -> None:
    asked = await asking(ledger)
    async with with_login(database, "runfold_worker") as url:
        await connection.execute("INSERT INTO ledger.project (project_id) VALUES ('other')")
        await grant(connection, login_of(url), ("decide", "read"), project="other")
        async with Ledger.open(url, "other") as mallory:
            kept = await decided(mallory.pool, asked.run_id, asked.version, project="other")
            assert kept is None
        with pytest.raises(UnknownProject):
            async with Ledger.open(url, PROJECT):
                pass
