"""Decisions: who makes them, about what, and that no way leads around it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from runfold.ledger import Ledger, Run, State, access, api_tokens
from runfold.ledger.errors import (
    DecisionRefused,
    IllegalTransition,
    InvalidValue,
    UnknownProject,
)
from runfold.ledger.events import ApprovalGranted, ApprovalRequested, ApprovalSigned, NoteAdded
from runfold.ledger.operations.decide import request
from runfold.ledger.postgres import schema
from runfold.ledger.postgres.urls import driver_url
from runfold.ledger.proof.decisions import DecisionCheck
from tests.support.clock import set_clock
from tests.support.databases import PROJECT
from tests.support.decisions import decided
from tests.support.logins import grant, login_of, with_login
from tests.support.runs import claimed, newest, types
from tests.support.waiting import awaited

Connection = asyncpg.Connection
REVOKED = "SELECT ledger.change_access('test', 'tests', $1, '{}', NULL, NULL, NULL)"


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
    async with connected(database, "submit", "work", "read", "audit") as (worker, _):
        for type_ in ("approval.granted", "approval.rejected"):
            with pytest.raises(asyncpg.PostgresError, match="lacks the right decide") as refused:
                await decided(worker, asked.run_id, asked.version, type=type_)
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
    await ledger.release(await claimed(ledger, "w:0"))
    [lease] = await ledger.claim("w:1")
    await ledger.heartbeat([lease])
    asked = await ledger.transition(lease, State.WAITING_APPROVAL, park=True, actor="zoe")

    for actor in ("zoe", "w:1"):
        with pytest.raises(DecisionRefused) as refused:
            await ledger.approve(asked, actor=actor)
        assert refused.value.why == "asker"


async def test_a_decision_is_about_its_run_under_its_key_alone(
    ledger: Ledger, other: Ledger
) -> None:
    first = await asking(ledger)
    lease = await claimed(ledger)
    await ledger.heartbeat([lease])
    waits = await ledger.transition(lease, State.WAITING_APPROVAL, park=True)
    second = await newest(ledger, waits.run_id, ApprovalRequested)
    # Ann holds another run, by a lease that is newer than theirs; keys are used, and by others.
    own = await ledger.submit("parse", key="another")
    await ledger.append(own.run_id, NoteAdded(text="x"), actor="ann")
    assert [held.run_id for held in await ledger.claim("ann")] == [own.run_id]
    await other.submit("parse", key="k")

    for asked, key in ((second, "k"), (first, "another key")):
        kept = await decided(ledger.pool, asked.run_id, asked.version, actor="ann", key=key)
        assert kept is not None
        assert (kept["version"], kept["refused"]) == (asked.version + 1, None)


async def test_one_credential_is_one_person_where_another_must_decide(
    database: str, ledger: Ledger
) -> None:
    async with (
        with_login(database, "runfold_worker", rights=("submit", "decide", "read")) as url,
        Ledger.open(url, PROJECT) as own,
    ):
        await own.submit("parse", actor="mallory")
        [lease] = await ledger.claim("w:1", ttl=60)
        content = request("Pay?", other_person=True)
        asked = await ledger.transition(lease, State.WAITING_APPROVAL, park=True, content=content)
        with pytest.raises(DecisionRefused) as refused:
            await own.approve(asked, actor="somebody else")

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


HOSTILE = (
    "SET standard_conforming_strings = off",
    "SET client_encoding = 'LATIN1'",
    "SET search_path = pg_temp, ledger",
    "SET plan_cache_mode = force_custom_plan",
    "SET enable_indexscan = off",
    "SET default_transaction_isolation = 'repeatable read'",
    "SET transform_null_equals = on",
    "SET row_security = on",
)


async def test_no_setting_of_a_session_makes_another_person_of_anybody(
    database: str, ledger: Ledger, subtests: pytest.Subtests
) -> None:
    for setting in HOSTILE:
        with subtests.test(setting):
            await ledger.submit("parse", actor="jo strauss")
            [lease] = await ledger.claim("w:1", ttl=60)
            content = request("Pay?", other_person=True, role="finance", approvals=2)
            asked = await ledger.transition(
                lease, State.WAITING_APPROVAL, park=True, content=content
            )
            for name in ("jo strauss", "JO STRAUSS", "W:1", "ann"):
                await ledger.grant_role("finance", name)
            async with connected(database, "decide") as (caller, _):
                await caller.execute(setting)
                for actor in ("jo strauss", "JO STRAUSS", "W:1", "zoe"):
                    with suppress(asyncpg.PostgresError):
                        assert await why(caller, asked, actor) in {"submitter", "asker", "role"}
                for actor in ("ann", "JO  STRAUSS"):
                    with suppress(asyncpg.PostgresError):
                        await why(caller, asked, actor)
            kinds = await types(ledger, asked.run_id)

            assert (kinds.count("approval.signed") <= 1, "approval.granted" in kinds) == (
                True,
                False,
            )
            for event in await ledger.history(asked.run_id):
                assert not isinstance(event, ApprovalSigned) or event.actor == "ann"


@pytest.mark.parametrize(
    ("locale", "odd", "same"),
    [
        ("LOCALE_PROVIDER libc LOCALE 'C'", "SELECT lower('Ä') = 'Ä'", ("ÄDA", "äda")),
        ("LOCALE_PROVIDER icu ICU_LOCALE 'tr'", "SELECT lower('I') <> 'i'", ("IAN", "ian")),
    ],
)
async def test_look_alikes_are_told_in_a_database_with_a_locale_of_its_own(
    ledger: Ledger, connection: Connection, locale: str, odd: str, same: tuple[str, str]
) -> None:
    name = f"locale_{asked_at()}"
    try:
        await connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 {locale}")
    except asyncpg.PostgresError as error:
        pytest.skip(f"this server has no such locale: {error}")
    try:
        other = await asyncpg.connect(driver_url(str(ledger.url)), database=name)
        await other.execute("CREATE SCHEMA ledger")
        await other.execute(schema.sql("guards/person"))
        assert await other.fetchval(odd)
        assert await other.fetchval("SELECT ledger.person($1) = ledger.person($2)", *same)
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
        await awaited(connection)
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
        await ledger.append(asked.run_id, NoteAdded(text=str(number)))  # which take no room
    for number in range(12):
        await decided(ledger.pool, asked.run_id, asked.version, actor=f"somebody {number}")
    async with connected(database, "decide") as (ann, login):
        refused = await decided(ann, asked.run_id, asked.version, body='{"reason": "due today"}')

    assert refused is not None
    assert refused["refused"] == "role"
    notes = [e for e in await ledger.history(asked.run_id) if isinstance(e, NoteAdded) and e.name]
    assert [note.credential for note in notes[-2:]] == ["postgres", login]
    assert (len(notes), notes[-1].name) == (11, "decision refused")
    assert [str(note.text).endswith("no more are noted of this credential") for note in notes] == [
        *[False] * 9, True, False,
    ]  # fmt: skip
    assert notes[-1].text == (
        "decision refused, yes: ann does not have the role 'finance' (the reason given: due today)"
    )
    await ledger.pool.execute(TEN_CREDENTIALS.replace("$1", f"'{asked.run_id}'"))
    notes = [e for e in await ledger.history(asked.run_id) if isinstance(e, NoteAdded) and e.name]
    assert [str(note.text).endswith("no more are noted of this run") for note in notes] == [
        *[False] * 99, True,
    ]  # fmt: skip


TEN_CREDENTIALS = """
DO $$ BEGIN
  FOR token IN 1..10 LOOP
    PERFORM ledger.change_token('boss', 'rf_' || token, sha256(('runfold_' || token)::bytea), 'ci',
      '1 day', NULL);
    PERFORM ledger.change_access('*', 'boss', 'token:rf_' || token, '{decide,work}', '{*}',
      NULL, NULL);
    PERFORM set_config('runfold.token', 'runfold_' || token, true);
    FOR refusal IN 1..9 LOOP
      PERFORM ledger.note_refusal('test', 'ann', $1, 'no');
    END LOOP;
    PERFORM set_config('runfold.token', '', true);
  END LOOP;
END $$
"""


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": "x"}, {"reason": 5}, {"reason": {"a": 1}}, {"meaning": "reviewed"},
        {"output": 1, "approved": 2},
    ],
)  # fmt: skip
async def test_a_decision_has_no_content_that_would_hide_it_from_readers(
    ledger: Ledger, body: dict[str, Any]
) -> None:
    asked = await asking(ledger)
    with pytest.raises(asyncpg.PostgresError, match="content of a decision") as refused:
        await decided(ledger.pool, asked.run_id, asked.version, body=json.dumps(body))
    assert refused.value.sqlstate == "22023"
    good = '{"reason": null, "output": {"reason": 5}}'
    assert (await decided(ledger.pool, asked.run_id, asked.version, body=good))["refused"] is None  # type: ignore[index]
    await newest(ledger, asked.run_id, ApprovalGranted)


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
        async with Ledger.open(url, "other") as own:
            kept = await decided(own.pool, asked.run_id, asked.version, project="other")
            assert kept is None
        with pytest.raises(UnknownProject):
            async with Ledger.open(url, PROJECT):
                pass


# -- several persons -------------------------------------------------------------------------------


@pytest.mark.parametrize("park", [True, False])
async def test_a_run_waits_until_as_many_different_persons_have_approved(
    ledger: Ledger, *, park: bool
) -> None:
    asked = await asking(ledger, park=park, approvals=2)
    before = await ledger.get(asked.run_id)
    assert (asked.approvals, before.approvals, before.approved) == (2, 2, 0)

    first = await ledger.approve(before, actor="ann", reason="fine", meaning="reviewed")
    signed = await newest(ledger, asked.run_id, ApprovalSigned)
    assert (first.state, first.approved, first.approvals) == (State.WAITING_APPROVAL, 1, 2)
    assert (first.token, first.lease_until, first.available_at, first.wait_until) == (
        before.token, before.lease_until, None, before.wait_until,
    )  # fmt: skip
    assert (signed.actor, signed.reason, signed.meaning) == ("ann", "fine", "reviewed")
    assert (signed.request, signed.shown_sha256) == (asked.version, asked.shown_sha256)
    assert (signed.approved, signed.approvals, signed.state) == (1, 2, None)
    for again in ("ann", "ANN", "\uff21nn"):
        with pytest.raises(DecisionRefused, match="another person must") as refused:
            await ledger.approve(asked, actor=again)
        assert refused.value.why == "twice"
    notes = await newest(ledger, asked.run_id, NoteAdded)
    assert notes.text is not None
    assert "approved request 3 before" in notes.text

    last = await ledger.approve(before, actor="bob")
    granted = await newest(ledger, asked.run_id, ApprovalGranted)
    assert (granted.actor, granted.approved, granted.approvals) == ("bob", 2, 2)
    assert (last.state, last.approved) == (
        (State.WAITING_APPROVAL, 2) if park else (State.RUNNING, 2)
    )
    assert (last.available_at is not None) == park
    at_first = await ledger.state_at(asked.run_id, signed.version)
    assert (at_first.approved, at_first.approvals) == (1, 2)


async def test_one_who_rejects_ends_the_wait_also_after_an_approval_of_their_own(
    ledger: Ledger,
) -> None:
    asked = await asking(ledger, approvals=3)
    await ledger.approve(asked, actor="ann")
    run = await ledger.reject(asked, actor="ann", reason="I misread it")

    assert (run.state, run.approved, run.approvals) == (State.CANCELLED, None, None)


async def test_one_login_is_one_person_and_two_are_two(
    database: str, ledger: Ledger, connection: Connection
) -> None:
    asked = await asking(ledger, approvals=2, role="finance")
    for name in ("ann", "bob", "eve"):
        await ledger.grant_role("finance", name)
    async with connected(database, "decide") as (one, _), connected(database, "decide") as (two, _):
        assert await why(one, asked, "ann") is None
        assert await why(one, asked, "bob") == "twice"
        assert await why(two, asked, "ann") == "twice"
        assert await why(two, asked, "zoe") == "role"
        assert (await ledger.get(asked.run_id)).available_at is None
        assert await why(two, asked, "bob") is None
    assert (await ledger.get(asked.run_id)).available_at is not None


async def test_a_parked_run_that_has_its_answer_takes_no_other_and_nothing_shown_is_nothing(
    ledger: Ledger,
) -> None:
    lease = await claimed(ledger)
    await ledger.transition(lease, State.WAITING_APPROVAL, park=True)
    asked = await newest(ledger, lease.run_id, ApprovalRequested)
    assert asked.shown_sha256 is None

    outcomes = [
        await decided(ledger.pool, lease.run_id, asked.version, actor=actor, shown=shown)
        for actor, shown in (("ann", "0" * 64), ("ann", ""), ("bob", ""))
    ]

    assert [row and row["refused"] for row in outcomes] == ["shown", None, "answered"]


async def test_tokens_are_persons_of_their_own_whoever_presents_them(
    ledger: Ledger, database: str
) -> None:
    asked = await asking(ledger, approvals=2)
    secrets = {}
    for name in ("ann", "bob"):
        credential, secrets[name] = await api_tokens.make_token(ledger.project, name)
        await access.grant(ledger.project, credential, ["decide"], actors=["ann", "bob"])
    async with connected(database) as (web, _):
        await web.execute("SELECT set_config('runfold.token', $1, false)", secrets["ann"])
        assert await why(web, asked, "ann") is None
        assert await why(web, asked, "bob") == "twice"
        await web.execute("SELECT set_config('runfold.token', $1, false)", secrets["bob"])
        assert await why(web, asked, "bob") is None


async def test_the_conditions_hold_for_each_of_several_persons(ledger: Ledger) -> None:
    await ledger.submit("parse", actor="zoe")
    [lease] = await ledger.claim("w:1", ttl=60)
    content = request("Pay?", other_person=True, approvals=2)
    waiting = await ledger.transition(lease, State.WAITING_APPROVAL, park=True, content=content)
    await ledger.approve(waiting, actor="ann")

    for actor, reason in (("Zoe", "submitter"), ("w:1", "asker"), ("ann", "twice")):
        with pytest.raises(DecisionRefused) as refused:
            await ledger.approve(waiting, actor=actor)
        assert refused.value.why == reason


async def test_approvals_of_an_earlier_request_do_not_count_for_the_next(ledger: Ledger) -> None:
    lease = await claimed(ledger)
    first = request("Pay?", {"sum": 7}, approvals=2)
    asked = await ledger.transition(lease, State.WAITING_APPROVAL, content=first)
    await ledger.approve(asked, actor="ann")
    await ledger.release(lease)
    [again] = await ledger.claim("w:2")
    content = request("Pay?", {"sum": 8}, approvals=2)
    waiting = await ledger.transition(again, State.WAITING_APPROVAL, park=True, content=content)

    assert (waiting.approved, waiting.approvals) == (0, 2)
    assert (await ledger.approve(waiting, actor="ann")).approved == 1
    assert (await ledger.approve(waiting, actor="bob")).available_at is not None


async def test_an_approval_that_one_of_two_gave_still_ends_at_its_time(ledger: Ledger) -> None:
    lease = await claimed(ledger)
    content = request("Pay?", approvals=2)
    waiting = await ledger.transition(
        lease, State.WAITING_APPROVAL, park=True, content=content, wait=60
    )
    await ledger.approve(waiting, actor="ann")
    await set_clock(ledger.pool, timedelta(seconds=61))
    with pytest.raises(IllegalTransition, match="time for an answer"):
        await ledger.approve(waiting, actor="bob")
    [reaped] = await ledger.reap()

    assert (reaped.state, reaped.approved, reaped.approvals) == (State.CANCELLED, None, None)


async def test_two_who_approve_at_once_are_counted_one_after_the_other(ledger: Ledger) -> None:
    asked = await asking(ledger, approvals=2)
    runs = await asyncio.gather(*(ledger.approve(asked, actor=name) for name in ("ann", "bob")))

    assert sorted(run.approved or 0 for run in runs) == [1, 2]
    assert (await types(ledger, asked.run_id))[-2:] == ["approval.signed", "approval.granted"]


async def test_a_condition_that_would_bind_nobody_is_refused_in_python_and_in_sql(
    ledger: Ledger, subtests: pytest.Subtests
) -> None:
    conditions: tuple[tuple[str, Any], ...] = (
        *(("approvals", number) for number in (0, 11, -1, True, 1.5, "2")),
        ("other_person", 1), ("other_person", "true"), ("role", 5), ("role", ["finance"]),
        ("role", ""), ("role", "x" * 201), ("role", "a\nb"), ("prompt", 1), ("shown_sha256", 1),
        ("based_on", "2"),
    )  # fmt: skip
    for name, value in conditions:
        with subtests.test(f"{name}={value!r}"):
            lease = await claimed(ledger)
            with pytest.raises(InvalidValue):
                await ledger.transition(lease, State.WAITING_APPROVAL, content={name: value})
            if name == "approvals":
                with pytest.raises(InvalidValue):
                    await ledger.ask_approval(lease, "Pay?", approvals=value)
            body = json.dumps({name: value})
            with pytest.raises(asyncpg.PostgresError) as refused:
                await ledger.pool.fetch(ASKS, PROJECT, lease.run_id, lease.token, body)
            assert refused.value.sqlstate == "22023"
            # The last of two members of one name counts, and each is checked.
            doubled = f'{{"{name}": {json.dumps(value)}, "{name}": null}}'
            if name != "role" or not isinstance(value, str):
                with pytest.raises(asyncpg.PostgresError):
                    await ledger.pool.fetch(ASKS, PROJECT, lease.run_id, lease.token, doubled)

            assert (await ledger.get(lease.run_id)).state == State.RUNNING


ASKS = (
    "SELECT * FROM ledger.transition($1, NULL, ARRAY[$2::uuid], ARRAY[$3::int], "
    "'{waiting_approval}', NULL, NULL, NULL, ARRAY[$4::text], NULL, NULL, NULL, NULL, NULL, NULL, "
    "NULL, '{w:1}')"
)


async def test_what_was_asked_outlives_its_content(unverified_database: str) -> None:
    connection = await asyncpg.connect(driver_url(unverified_database))
    async with Ledger.open(unverified_database, PROJECT) as ledger:
        lease = await claimed(ledger)
        content = request("Pay?", approvals=2) | {"based_on": 2}
        asked = await ledger.transition(lease, State.WAITING_APPROVAL, park=True, content=content)
        await connection.execute("ALTER TABLE ledger.payload DISABLE TRIGGER refuse_change")
        await connection.execute("DELETE FROM ledger.payload WHERE version = $1", asked.version)
        event = await newest(ledger, asked.run_id, ApprovalRequested)
        assert (event.approvals, event.based_on, event.prompt) == (2, 2, None)
        assert (await ledger.approve(asked, actor="ann")).approved == 1
    await connection.close()


async def test_nobody_decides_where_another_must_while_who_asked_is_erased(
    unverified_database: str,
) -> None:
    connection = await asyncpg.connect(driver_url(unverified_database))
    async with Ledger.open(unverified_database, PROJECT) as ledger:
        parent = await ledger.submit("whole", actor="zoe")
        await ledger.submit("parse", parent=parent.run_id, actor="w:0")
        [lease] = await ledger.claim("w:1", kinds=["parse"])
        asked = await ledger.ask_approval(lease, "Pay?", other_person=True)
        assert await why(connection, asked, "zoe") == "submitter"
        await connection.execute("ALTER TABLE ledger.payload DISABLE TRIGGER refuse_change")
        await connection.execute("DELETE FROM ledger.payload WHERE run_id = $1", lease.run_id)
        assert await why(connection, asked, "zoe") == "unread"
        assert await why(connection, asked, "w:0") == "submitter"
        # A circle of parents, which nobody walks to an end.
        await connection.execute(
            "INSERT INTO ledger.payload (project_id, run_id, version, salt, body) "
            "SELECT 'test', $1::uuid, 1, sha256(''), json_build_object('parent', $1::uuid)",
            lease.run_id,
        )
        assert await why(connection, asked, "zoe") == "unread"
    await connection.close()


async def why(source: Connection, asked: ApprovalRequested | Run, actor: str) -> str | None:
    """Approve a request in a name; return why it was refused."""
    kept = await decided(source, asked.run_id, asked.version, actor=actor)
    assert kept is not None
    refused: str | None = kept["refused"]
    return refused


FORGED: dict[str, dict[str, Any]] = {
    "a second time": {"actor": "ANN", "approved": 2, "type": "approval.granted"},
    "1 of 2 persons": {"approved": 1, "type": "approval.granted"},
    "2 of 2 persons": {"actor": "bob", "approved": 2},
    "says that 2 of 2": {"approved": 2},
    "decides request 1": {"request": 1},
    "something else": {"shown_sha256": "0" * 64},
    "another person": {"actor": "W:1"},
    "zoe asked": {"actor": "zoe"},
}


@pytest.mark.parametrize("problem", FORGED)
def test_verify_names_a_decision_that_the_functions_would_not_take(problem: str) -> None:
    asked = {
        "type": "approval.requested", "version": 3, "approvals": 2, "approved": 0,
        "shown_sha256": "1" * 64, "request": None, "actor": "w:1", "other_person": True,
    }  # fmt: skip
    yes: dict[str, Any] = {
        "type": "approval.signed", "version": 4, "request": 3, "shown_sha256": "1" * 64,
        "actor": "ann", "approvals": 2, "approved": 1,
    }  # fmt: skip
    check = DecisionCheck()
    assert check.problem({"type": "run.submitted", "actor": "Zoe"}) is None
    assert check.problem({"type": "lease.acquired", "worker_id": "w:1"}) is None
    assert check.problem(asked) is None
    if problem in {"a second time", "2 of 2 persons"}:
        assert check.problem(yes) is None
    assert problem in str(check.problem({**yes, **FORGED[problem]}))
