"""The log: one event for each thing that happens to a run, with plain facts to filter by."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from runfold.console.cli.kit.session import configure_log
from runfold.ledger import Lease, Ledger, State, Transition, log, names
from runfold.ledger.errors import LeaseLost
from runfold.ledger.lifecycle import ATTEMPTS_EXHAUSTED, LEASE_EXPIRED
from tests.support.databases import PROJECT
from tests.support.runs import TINY, abandoned, claimed, waiting
from tests.support.waiting import passed


@pytest.fixture(autouse=True)
def _configured() -> Iterator[None]:
    structlog.configure()
    yield
    structlog.reset_defaults()


def told(logs: list[Any], event: str) -> list[dict[str, Any]]:
    """Return what was logged under a name, without the name; a log must be JSON as it is."""
    return [
        {k: v for k, v in json.loads(json.dumps(one)).items() if k != "event"}
        for one in logs
        if one["event"] == event
    ]


def of(lease: Lease, **facts: Any) -> dict[str, Any]:
    """Return what is said of every run of these tests."""
    return {"project_id": PROJECT, "run_id": str(lease.run_id), **facts}


async def test_a_lease_and_every_move_under_it_say_who_holds_it_and_which_attempt_it_is(
    ledger: Ledger,
) -> None:
    with capture_logs() as logs:
        lease = await claimed(ledger, max_attempts=5)
        await ledger.transition(lease, "waiting_tool")
        await ledger.transition_many([Transition(lease, "failed", error_code="E-1")])

    held = {"worker_id": "w:1", "attempt_count": 1, "max_attempts": 5, "log_level": "info"}
    assert told(logs, "run_lease_acquired") == [of(lease, **held)]
    assert told(logs, "run_state_transition") == [
        of(lease, from_state="running", to_state="waiting_tool", error_code=None, **held),
        of(lease, from_state="waiting_tool", to_state="failed", error_code="E-1", **held),
    ]


async def test_an_approval_that_lapses_is_logged_as_a_move_and_not_as_a_failure(
    ledger: Ledger,
) -> None:
    lease = await waiting(
        ledger, State.WAITING_APPROVAL, park=True, wait=TINY, wait_outcome="lapsed"
    )
    await passed(ledger, (await ledger.get(lease.run_id)).wait_until)
    with capture_logs() as logs:
        await ledger.reap()

    assert [one["log_level"] for one in told(logs, "run_state_transition")] == ["info"]
    assert told(logs, "stale_run_failed") == []


async def test_a_decision_says_no_worker(ledger: Ledger) -> None:
    lease = await claimed(ledger)
    await ledger.transition(lease, "waiting_approval", park=True)

    with capture_logs() as logs:
        await ledger.reject(await ledger.get(lease.run_id), actor="ann", reason="too dear")

    moved = of(
        lease,
        from_state="waiting_approval",
        to_state="cancelled",
        error_code=None,
        log_level="info",
    )
    assert told(logs, "run_state_transition") == [moved]


async def test_a_repair_is_a_warning_and_the_end_of_all_attempts_an_error(ledger: Ledger) -> None:
    first = await abandoned(ledger, "w:1", begun=True, max_attempts=1)
    second = await abandoned(ledger, "w:2", begun=True, max_attempts=2)

    with capture_logs() as logs:
        await ledger.reap()

    said = {"attempt_count": 1, "from_state": "running"}
    assert told(logs, "stale_run_failed") == [
        of(
            first,
            worker_id="w:1",
            max_attempts=1,
            to_state="failed",
            error_code=ATTEMPTS_EXHAUSTED,
            log_level="error",
            **said,
        )
    ]
    assert told(logs, "stale_run_requeued") == [
        of(
            second,
            worker_id="w:2",
            max_attempts=2,
            to_state="pending",
            error_code=LEASE_EXPIRED,
            log_level="warning",
            **said,
        )
    ]
    assert told(logs, "stale_run_reaper_done") == [
        {"project_id": PROJECT, "reaped": 2, "log_level": "info"}
    ]


async def test_a_late_write_is_a_warning_that_names_who_holds_the_run_now(ledger: Ledger) -> None:
    zombie = await abandoned(ledger, "w:zombie")
    await ledger.reap()
    await ledger.claim("w:new")

    with capture_logs() as logs, pytest.raises(LeaseLost):
        await ledger.transition(zombie, State.COMPLETED)

    refused = of(
        zombie,
        token=zombie.token,
        worker_id="w:new",
        from_state="running",
        to_state="completed",
        log_level="warning",
    )
    assert told(logs, "write_refused") == [refused]


@pytest.mark.parametrize("by", ["nobody", "the command line"])
def test_a_line_of_the_log_is_one_write(by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Unbuffered(io.StringIO):
        def write(self, text: str) -> int:
            written.append(text)
            return len(text)

    written: list[str] = []
    structlog.reset_defaults()
    if by == "the command line":
        configure_log(as_json=True, verbose=False)
    monkeypatch.setattr("sys.stderr", Unbuffered())
    log.logger(project_id=PROJECT).warning(names.WRITE_REFUSED)

    [line] = written  # two processes that share the output would mix the parts of their lines
    assert line.endswith("\n")
