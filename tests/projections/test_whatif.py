"""What-if: hand-made and recorded leases judged by another policy."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from runfold.console.cli.kit import exits
from runfold.ledger import Ledger, State
from runfold.ledger.errors import InvalidValue
from runfold.projections import whatif
from runfold.projections.whatif import Policy, Verdict, WhatIf, judge
from tests.support.console import Cli, cli
from tests.support.runs import abandoned, claimed
from tests.support.snapshots import held_snapshots

__all__ = ["cli"]

START = datetime(2026, 1, 1, tzinfo=UTC)
NOW = START + timedelta(days=1)
TTL = 60


def seconds(value: float) -> timedelta:
    return timedelta(seconds=value)


class History:
    """The events of one run, at seconds since its start, as the ledger records them."""

    def __init__(self, max_attempts: int = 3) -> None:
        self.run_id = uuid4()
        self.events: list[dict[str, Any]] = []
        self._token, self._attempt = 0, 0
        self._add(0, "run.submitted", kind="parse", max_attempts=max_attempts)

    def _add(self, at: float, type_: str, **facts: Any) -> History:
        names = (
            "kind",
            "max_attempts",
            "attempt",
            "worker_id",
            "token",
            "lease_until",
            "error_code",
        )
        event = {
            **dict.fromkeys(names),
            "run_id": self.run_id,
            "type": type_,
            "actor": "w:1",
            "recorded_at": START + seconds(at),
        }
        self.events.append({**event, **facts})
        return self

    def acquired(self, at: float) -> History:
        self._token, self._attempt = len(self.events) + 1, self._attempt + 1
        until = START + seconds(at + TTL)
        return self._add(
            at,
            "lease.acquired",
            token=self._token,
            attempt=self._attempt,
            worker_id="w:1",
            lease_until=until,
        )

    def beats(self, *times: float) -> History:
        for at in times:
            self._add(
                at, "lease.heartbeat", token=self._token, lease_until=START + seconds(at + TTL)
            )
        return self

    def then(self, at: float, type_: str, **facts: Any) -> History:
        return self._add(at, type_, **facts)

    def refused(self, at: float) -> History:
        return self._add(at, "write.refused", token=self._token)


def judged(policy: Policy, *histories: History) -> list[Verdict]:
    what_if = WhatIf(policy, NOW)
    found = [what_if.add(event) for history in histories for event in history.events]
    return [verdict for verdict in (*found, what_if.close()) if verdict is not None]


def policy(
    ttl: float | None = None,
    beat: float | None = None,
    attempts: int | None = None,
    sweep: float = 1,
) -> Policy:
    return Policy(
        None if ttl is None else seconds(ttl),
        None if beat is None else seconds(beat),
        attempts,
        seconds(15),
        seconds(sweep),
    )


def said(verdicts: list[Verdict]) -> list[tuple[str, bool, float]]:
    return [
        (verdict.outcome, verdict.certain, (verdict.at - START).total_seconds())
        for verdict in verdicts
    ]


def test_the_policy_that_was_in_force_changes_nothing() -> None:
    done = History().acquired(0).beats(15, 30).then(40, "run.completed")
    died = (
        History()
        .acquired(0)
        .beats(15)
        .then(76, "lease.expired")
        .acquired(80)
        .then(90, "run.completed")
    )
    gone = History(max_attempts=1).acquired(0).then(61, "run.failed", error_code="E-RUN-002")

    assert judged(policy(), done, died, gone) == []


def test_a_gap_longer_than_the_ttl_is_a_lease_that_would_have_been_reaped() -> None:
    stalled = History().acquired(0).beats(15, 60, 75).then(80, "run.completed")

    (verdict,) = judged(policy(ttl=30), stalled)

    assert said([verdict]) == [("reaped", True, 45)]
    assert (verdict.silent, verdict.attempt, verdict.max_attempts) == (seconds(45), 1, 3)
    assert (verdict.worker_id, verdict.recorded) == ("w:1", "run.completed")
    assert judged(policy(ttl=45), stalled) == []
    assert said(judged(policy(ttl=30, sweep=60), stalled)) == [("reaped", False, 45)]


def test_the_silence_before_the_end_counts_and_so_does_that_of_an_open_lease() -> None:
    assert said(judged(policy(ttl=30), History().acquired(0).then(50, "run.completed"))) == [
        ("reaped", True, 30)
    ]
    parked = (
        History()
        .acquired(0)
        .then(10, "approval.requested")
        .then(9_000, "approval.granted")
        .acquired(9_010)
    )
    assert said(judged(policy(ttl=30), parked)) == [("reaped", True, 9_040)]
    assert judged(policy(ttl=30), parked)[0].recorded is None


def test_a_transition_while_holding_is_no_beat() -> None:
    held = History().acquired(0)
    held.then(
        20, "tool.requested", token=2, lease_until=START + seconds(TTL), worker_id="w:1"
    ).then(40, "run.completed")

    assert said(judged(policy(ttl=30), held)) == [("reaped", True, 30)]


def test_with_no_attempt_left_the_run_would_have_failed() -> None:
    twice = (
        History()
        .acquired(0)
        .then(61, "lease.expired")
        .acquired(70)
        .then(131, "lease.expired")
        .acquired(140)
    )
    twice.then(150, "run.completed")

    assert said(judged(policy(attempts=2), twice)) == [("failed", True, 130)]
    assert judged(policy(attempts=3), twice) == []
    assert said(judged(policy(ttl=20, attempts=2), twice)) == [("failed", True, 90)]
    retried = History().acquired(0).then(5, "run.retried").acquired(6).then(9, "run.completed")
    assert said(judged(policy(attempts=1), retried)) == [("failed", True, 5)]


def test_with_more_attempts_a_failed_run_would_have_been_reaped_only() -> None:
    failed = History(max_attempts=1).acquired(0).then(61, "run.failed", error_code="E-RUN-002")

    assert said(judged(policy(attempts=2), failed)) == [("reaped", True, 60)]


def test_a_reaped_worker_that_was_heard_of_again_in_time_would_have_been_spared() -> None:
    zombie = (
        History()
        .acquired(0)
        .then(61, "lease.expired")
        .refused(100)
        .acquired(110)
        .then(120, "run.completed")
    )
    dead = History().acquired(0).then(61, "lease.expired").acquired(110).then(120, "run.completed")

    assert said(judged(policy(ttl=120), zombie)) == [("spared", True, 61)]
    assert judged(policy(ttl=90), zombie) == judged(policy(ttl=120), dead) == []


def test_a_lapse_after_a_request_to_cancel_would_have_cancelled() -> None:
    asked = History().acquired(0).then(5, "cancel.requested").beats(50).then(55, "run.completed")

    assert said(judged(policy(ttl=30), asked)) == [("cancelled", True, 30)]


def test_a_longer_beat_keeps_the_beats_that_it_would_have_sent() -> None:
    steady = History().acquired(0).beats(*range(15, 301, 15)).then(310, "run.completed")

    assert judged(policy(ttl=60, beat=30), steady) == []
    assert said(judged(policy(ttl=25, beat=30, sweep=1), steady)) == [("reaped", True, 25)]
    # After a beat every 20 s none was recorded at 20 but at 30: the worker was silent for 20 to 30
    # s.
    assert said(judged(policy(ttl=25, beat=20), steady)) == [("reaped", False, 25)]


def test_a_shorter_beat_can_have_cut_a_silence_by_the_beats_between_only() -> None:
    stalled = History().acquired(0).beats(15, 60).then(61, "run.completed")

    # 45 s recorded; with a beat every 5 s, two more may have come before the stall: 35 to 45 s.
    assert said(judged(policy(ttl=30, beat=5), stalled)) == [("reaped", True, 45)]
    assert said(judged(policy(ttl=40, beat=5), stalled)) == [("reaped", False, 55)]
    assert judged(policy(ttl=46, beat=5), stalled) == []


def test_a_run_is_judged_up_to_the_first_thing_that_is_certain_to_go_otherwise() -> None:
    run = (
        History()
        .acquired(0)
        .beats(30.5)
        .then(31, "lease.released")
        .acquired(40)
        .then(90, "run.completed")
    )

    assert said(judged(policy(ttl=30, sweep=10), run)) == [("reaped", True, 70)]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_beats() -> None:
    def beats() -> Iterator[dict[str, Any]]:
        run_id = UUID(int=7)
        names = (
            "kind",
            "max_attempts",
            "attempt",
            "worker_id",
            "token",
            "lease_until",
            "error_code",
        )
        common = {
            **dict.fromkeys(names),
            "run_id": run_id,
            "actor": "w",
            "token": 2,
            "attempt": 1,
            "worker_id": "w",
        }
        yield {
            **common,
            "type": "run.submitted",
            "recorded_at": START,
            "kind": "parse",
            "max_attempts": 3,
        }
        for number in range(50_000):
            at = START + seconds(number)
            yield {
                **common,
                "type": "lease.heartbeat" if number else "lease.acquired",
                "recorded_at": at,
                "lease_until": at + seconds(60),
            }

    what_if = WhatIf(policy(ttl=1_000_000), NOW)
    tracemalloc.start()
    for event in beats():
        what_if.add(event)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert what_if.close() is None
    assert what_if.beats == 49_999
    assert peak < 500_000


# -- on a ledger -----------------------------------------------------------------------


async def _lives(ledger: Ledger) -> dict[str, UUID]:
    died = await abandoned(ledger, "w:dead")
    await ledger.reap()
    (again,) = await ledger.claim("w:next")
    await ledger.transition(again, State.COMPLETED)
    lived = await claimed(ledger, "w:1")
    await ledger.heartbeat([lived])
    await ledger.transition(lived, State.COMPLETED)
    await ledger.submit("never leased")
    return {"died": died.run_id, "lived": lived.run_id}


async def verdicts(ledger: Ledger, given: Policy, since: datetime | None = None) -> list[Verdict]:
    what_if = WhatIf(given, datetime.now(UTC))
    return [verdict async for verdict in judge(ledger, what_if, since)]


async def test_what_the_ledger_recorded_is_judged(ledger: Ledger) -> None:
    runs = await _lives(ledger)

    assert await verdicts(ledger, Policy()) == []
    (failed,) = await verdicts(ledger, Policy(max_attempts=1))
    assert (failed.run_id, failed.outcome, failed.recorded) == (
        runs["died"],
        "failed",
        "lease.expired",
    )
    strict = await verdicts(
        ledger, Policy(ttl=timedelta(microseconds=1), sweep=timedelta(microseconds=1))
    )
    assert {verdict.run_id for verdict in strict} == set(runs.values())
    assert (
        await verdicts(
            ledger, Policy(max_attempts=1), since=datetime.now(UTC) + timedelta(minutes=1)
        )
        == []
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"ttl": timedelta(0)},
        {"beat": timedelta(days=-1)},
        {"ttl": timedelta.max},
        {"max_attempts": 0},
    ],
)
def test_what_is_no_policy_is_refused_where_it_is_made(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidValue):
        Policy(**changes)


async def test_any_instant_is_a_beginning_and_one_without_a_zone_is_none(ledger: Ledger) -> None:
    runs = await _lives(ledger)
    for early in (datetime(1, 1, 1, tzinfo=UTC), datetime(1969, 12, 31, tzinfo=UTC)):
        assert [one.run_id for one in await verdicts(ledger, Policy(max_attempts=1), early)] == [
            runs["died"]
        ]
    assert await verdicts(ledger, Policy(max_attempts=1), datetime(9999, 12, 31, tzinfo=UTC)) == []
    with pytest.raises(InvalidValue, match="no time zone"):
        await verdicts(ledger, Policy(), datetime(2026, 1, 1))  # noqa: DTZ001  what is tested


async def test_no_snapshot_is_held_from_page_to_page_and_later_events_are_not_judged(
    ledger: Ledger, connection: asyncpg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whatif, "_PAGE", 2)
    runs = await _lives(ledger)
    now = await ledger.pool.fetchval("SELECT ledger.now()")
    what_if, found = WhatIf(Policy(max_attempts=1), now), []
    late = (await ledger.submit("parse")).run_id
    await ledger.cancel(late, actor="ann", reason="not needed")

    async for verdict in judge(ledger, what_if):
        found.append(verdict.run_id)
        assert await held_snapshots(connection) == 0

    assert found == [runs["died"]]
    assert what_if.runs == 3


def test_whatif_prints_a_line_a_run_and_sums_up(cli: Cli) -> None:
    runs = cli.given(_lives)

    answer = cli.ok("whatif", "--max-attempts", "1", "--ttl", "60s")

    assert answer.out.startswith(f"{runs['died']} failed ")
    assert "recorded: lease.expired" in answer.out
    assert answer.err == "3 runs, 3 leases, 1 beat: 1 failed\n"
    verdict = cli.ok("whatif", "--max-attempts", "1", "--json").json
    assert (verdict["outcome"], verdict["certain"], verdict["silent"]) == ("failed", True, None)
    assert "no run would have gone differently" in cli.ok("whatif").err


def test_whatif_refuses_what_is_no_policy(cli: Cli, subtests: pytest.Subtests) -> None:
    for words in (
        ("--ttl", "0"),
        ("--ttl", "soon"),
        ("--heartbeat", "-1"),
        ("--max-attempts", "0"),
        ("--since", "2026-01-01"),
        ("--reaper", "0"),
    ):
        with subtests.test(f"{words}"):
            cli.fails(exits.USAGE, "whatif", *words)
