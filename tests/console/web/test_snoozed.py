"""A request that a person has put off: out of that person's list alone, and back in time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import asyncpg
import httpx
import pytest

from runfold.console.shared.inbox import count_inbox, inbox, snoozed_requests
from runfold.ledger import Ledger, snoozes
from runfold.ledger.errors import InvalidValue
from tests.support.clock import set_clock
from tests.support.runs import claimed
from tests.support.web import words_of

BASE = "/p/test/approvals"
HOUR = timedelta(hours=1)


async def asked(ledger: Ledger, **facts: object) -> tuple[str, int]:
    """Let a run ask for an approval and park; return the run and the request's version."""
    lease = await claimed(ledger)
    waits = await ledger.ask_approval(lease, "Refund?", park=True, **facts)  # type: ignore[arg-type]
    return str(lease.run_id), waits.version


async def shown(ledger: Ledger, actor: str) -> Sequence[str]:
    """Return the runs in a person's list of approvals."""
    return [str(request.run_id) for request in await inbox(ledger, actor, 10)]


async def test_not_now_hides_a_request_from_one_person_and_is_undone(
    web: httpx.AsyncClient, ledger: Ledger
) -> None:
    run, version = await asked(ledger)
    other, _ = await asked(ledger)
    before = await ledger.get(run)
    snooze = f"{BASE}/{run}/{version}/snooze"

    assert (await web.post(snooze, data={"wait": "4h"})).headers["location"] == BASE
    assert await shown(ledger, ledger.actor) == [other]
    assert await count_inbox(ledger, ledger.actor, 9) == 1
    assert await shown(ledger, "bo") == [run, other]
    [(_, until)] = await snoozed_requests(ledger, ledger.actor)
    assert timedelta(hours=3.9) < until - datetime.now(UTC) < timedelta(hours=4.1)
    assert '"count" data-live="waiting"> 1<' in (page := words_of(await web.get(BASE)))
    assert "Snoozed 1" in page
    assert run not in page
    assert run in (await web.get(f"{BASE}?show=snoozed")).text
    assert "Snoozed until" in (await web.get(f"{BASE}/{run}/{version}")).text
    [row] = (await web.get(f"{BASE}.json?show=snoozed")).json()["approvals"]
    assert (row["run_id"], row["until"][:4]) == (run, str(until.year))

    await web.post(snooze, data={"change": "undo"})
    assert await shown(ledger, ledger.actor) == [run, other]
    assert await ledger.get(run) == before, "a setting of a person is no event of the run"


async def test_a_request_is_put_off_by_the_databases_clock(
    web: httpx.AsyncClient, ledger: Ledger
) -> None:
    run, version = await asked(ledger)
    await set_clock(ledger.pool, 2 * HOUR)

    assert (await web.post(f"{BASE}/{run}/{version}/snooze", data={"wait": "1h"})).is_redirect

    assert await shown(ledger, ledger.actor) == []


async def test_a_request_is_back_at_its_time_or_when_it_changes(
    ledger: Ledger, connection: asyncpg.Connection
) -> None:
    run, version = await asked(ledger, approvals=2)
    other, _ = await asked(ledger)
    for each in (run, other):
        waits = version if each == run else _
        assert await snoozes.snooze(
            ledger.project, each, waits, datetime.now(UTC) + HOUR, actor="ann"
        )
    assert await shown(ledger, "ann") == []

    await snoozes.snooze(ledger.project, other, _, None, actor="bo")
    assert await shown(ledger, "ann") == [], "nobody takes back what another has put off"

    [request] = [each for each in await inbox(ledger, "bo", 2) if str(each.run_id) == run]
    await ledger.approve(await ledger.get(run), actor="bo")
    assert request.version == version
    assert await shown(ledger, "ann") == [run], "another person has approved meanwhile"

    await set_clock(connection, 2 * HOUR)
    assert await shown(ledger, "ann") == [run, other]
    assert await snoozed_requests(ledger, "ann") == []


async def test_a_replaced_request_is_back_and_a_decided_one_is_not_put_off(
    web: httpx.AsyncClient, ledger: Ledger
) -> None:
    run, version = await asked(ledger, wait=30 * 86_400)
    snooze = f"{BASE}/{run}/{version}/snooze"
    await web.post(snooze, data={})
    await ledger.approve(await ledger.get(run), actor="ann")
    assert (await web.post(snooze, data={})).status_code == 409
    [lease] = await ledger.claim("w")
    again = await ledger.ask_approval(lease, "And now?", park=True)

    assert again.version > version
    assert await shown(ledger, ledger.actor) == [run]
    after = datetime.now(UTC) + timedelta(days=40)  # when nobody could have decided the first
    assert not await snoozes.snooze(ledger.project, run, version, after)
    refused = await web.post(
        f"/v1/runs/{run}/snooze",
        json={"until": f"{datetime.now(UTC) + HOUR:%Y-%m-%dT%H:%M:%SZ}"},
        headers={"If-Match": f'"{version}"'},
    )
    assert (refused.status_code, refused.json()["code"]) == (409, "illegal-transition")
    put = await web.post(
        f"/v1/runs/{run}/snooze",
        json={"until": f"{datetime.now(UTC) + HOUR:%Y-%m-%dT%H:%M:%SZ}"},
        headers={"If-Match": f'"{again.version}"'},
    )
    assert put.json()["changed"] is True
    assert await shown(ledger, ledger.actor) == []


async def test_who_has_put_off_all_that_one_may_can_put_those_off_to_another_time(
    ledger: Ledger, connection: asyncpg.Connection
) -> None:
    run, version = await asked(ledger)
    other, of_other = await asked(ledger)
    now = datetime.now(UTC)
    assert await snoozes.snooze(ledger.project, run, version, now + HOUR)
    await connection.execute(
        "INSERT INTO ledger.snooze"
        " SELECT project_id, actor, gen_random_uuid(), version, seen, until"
        " FROM ledger.snooze, generate_series(2, $1)",
        snoozes.MOST,
    )

    with pytest.raises(InvalidValue, match="take one back"):
        await snoozes.snooze(ledger.project, other, of_other, now + HOUR)
    assert await snoozes.snooze(ledger.project, run, version, now + 2 * HOUR)


async def test_times_that_hide_a_request_for_good_are_refused(
    web: httpx.AsyncClient, ledger: Ledger, subtests: pytest.Subtests
) -> None:
    run, version = await asked(ledger, wait=7200)
    snooze = f"{BASE}/{run}/{version}/snooze"
    for said in (
        {"until": "2001-01-01T00:00"}, {"until": "2222-01-01T00:00"}, {"until": "soon"},
        {"until": "9999-12-31T23:59"}, {"wait": "5y"}, {"wait": "3d"}, {"change": "x"},
    ):  # fmt: skip
        with subtests.test(f"{said}"):
            assert (await web.post(snooze, data=said)).status_code == 422
            assert await shown(ledger, ledger.actor) == [run]
    with pytest.raises(InvalidValue, match="nobody can decide the request after"):
        await snoozes.snooze(ledger.project, run, version, datetime.now(UTC) + 3 * HOUR)
    with pytest.raises(InvalidValue, match="time zone"):
        await snoozes.snooze(ledger.project, run, version, datetime.now())  # noqa: DTZ005
    in_zone = {"until": f"{datetime.now(UTC) + HOUR:%Y-%m-%dT%H:%M}"}
    assert (await web.post(snooze, data=in_zone)).status_code == 303
    assert await shown(ledger, ledger.actor) == []
