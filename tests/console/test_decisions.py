"""Decisions at the command line: what is asked is shown, and a decision names what it decides."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from runfold.console.cli.kit import exits
from runfold.ledger import Lease, Ledger, State
from runfold.ledger.roles import grant
from tests.console.test_process import typed
from tests.support.clock import set_clock
from tests.support.console import Cli, cli, execute
from tests.support.runs import claimed, types, waiting

__all__ = ["cli"]


async def asked(ledger: Ledger, **content: Any) -> Lease:
    """Bring a run to where it waits for an approval, given back by its worker."""
    lease = await claimed(ledger)
    shown = {"prompt": "Pay 40 EUR?", "show": {"amount": 40}, **content}
    await ledger.transition(
        lease, State.WAITING_APPROVAL, park=True, name="refund", content=shown, wait=600
    )
    return lease


def request_of(cli: Cli, run_id: UUID | str) -> str:
    """The version of the request that a run waits with."""
    return str(cli.ok("show", str(run_id), "--json").json["request"]["version"])


def test_show_has_everything_that_is_decided(cli: Cli) -> None:
    lease = cli.given(lambda ledger: asked(ledger, role="finance", other_person=True))

    answer = cli.ok("show", str(lease.run_id))
    request = cli.ok("show", str(lease.run_id), "--json").json["request"]

    for expected in ("Pay 40 EUR?", '"amount": 40', "3, refund", "role finance", "cancelled 20"):
        assert expected in answer.out
    assert (request["prompt"], request["show"], request["role"], request["version"]) == (
        "Pay 40 EUR?",
        {"amount": 40},
        "finance",
        3,
    )


def test_the_hint_names_who_may_not_decide(cli: Cli) -> None:
    lease = cli.given(lambda ledger: asked(ledger, other_person=True))

    said = cli.ok("show", str(lease.run_id)).err

    assert "submitted the run: another person must decide" in said
    assert f"runfold approve {lease.run_id} --request 3 --actor NAME" in said


@pytest.mark.parametrize("park", [True, False])
def test_approve_lets_the_run_go_on(cli: Cli, park: bool) -> None:  # noqa: FBT001  a parameter of the test
    lease = cli.given(lambda ledger: waiting(ledger, State.WAITING_APPROVAL, park=park))
    words = ("--request", request_of(cli, lease.run_id), "--actor", "ann", "--reason", "fine")

    run = cli.ok("approve", str(lease.run_id), *words, "--json").json
    last = cli.ok("history", str(lease.run_id), "--json").lines[-1]

    assert run["state"] == ("waiting_approval" if park else "running")
    assert (last["type"], last["actor"], last["reason"]) == ("approval.granted", "ann", "fine")


def test_a_decision_must_name_its_request(cli: Cli) -> None:
    lease = cli.given(asked)

    for name in ("approve", "reject"):
        answer = cli.fails(exits.USAGE, name, str(lease.run_id))
        assert f"runfold show {lease.run_id}" in answer.err
        answer = cli.fails(exits.USAGE, name, str(lease.run_id), "--request", "9")
        assert f"has no request 9: `runfold show {lease.run_id}` shows it" in answer.err
    assert cli.ok("show", str(lease.run_id), "--json").json["version"] == 3


def test_approving_twice_is_a_conflict(cli: Cli) -> None:
    lease = cli.given(asked)
    words = ("approve", str(lease.run_id), "--request", "3")
    assert "when a worker claims it" in cli.ok(*words).err

    cli.fails(exits.CONFLICT, *words)


def test_the_same_call_again_does_not_grant_the_next_request(cli: Cli) -> None:
    lease = cli.given(asked)
    words = ("approve", str(lease.run_id), "--request", "3", "--actor", "ann")
    cli.ok(*words)

    async def asked_again(ledger: Ledger) -> None:
        (again,) = await ledger.claim("w:2")
        await ledger.transition(
            again, State.WAITING_APPROVAL, park=True, content={"prompt": "Pay 4,000 EUR?"}
        )

    cli.given(asked_again)
    cli.fails(exits.CONFLICT, *words)

    granted = cli.given(lambda ledger: types(ledger, lease.run_id))
    assert granted.count("approval.granted") == 1
    assert granted[-1] == "note.added"  # the refused decision


def test_a_remark_after_the_request_is_in_nobodys_way(cli: Cli) -> None:
    from runfold.ledger.events import NoteAdded

    lease = cli.given(asked)
    cli.given(lambda ledger: ledger.append(lease.run_id, NoteAdded(text="looks fine")))

    cli.ok("approve", str(lease.run_id), "--request", "3")


def test_reject_cancels_the_run(cli: Cli) -> None:
    lease = cli.given(asked)
    words = ("reject", str(lease.run_id), "--request", "3", "--reason", "no")

    assert cli.ok(*words).out == f"{lease.run_id} cancelled\n"
    cli.fails(exits.CONFLICT, *words)


def test_a_run_that_waits_for_nobody_cannot_be_approved(cli: Cli) -> None:
    run_id = str(cli.submitted())

    error = cli.fails(exits.CONFLICT, "approve", run_id, "--json").error

    assert (error["type"], error["from_state"], error["to_state"]) == (
        "IllegalTransition",
        "pending",
        "running",
    )


@pytest.mark.parametrize(("answer", "state"), [("y\n", "approval.granted"), ("n\n", None)])
def test_a_terminal_shows_the_request_and_asks(
    cli: Cli, database: str, answer: str, state: str | None
) -> None:
    lease = cli.given(asked)

    shown, code = typed(database, answer, "approve", str(lease.run_id))

    for expected in ("Pay 40 EUR?", '"amount": 40', "approve request 3? [y/N]"):
        assert expected in shown
    newest = cli.given(lambda ledger: types(ledger, lease.run_id))[-1]
    assert (newest, code) == ((state, exits.OK) if state else ("approval.requested", exits.ERROR))


def test_the_inbox_has_what_waits_and_what_a_person_may_decide(cli: Cli) -> None:
    first = cli.given(lambda ledger: asked(ledger, prompt="first", role="finance"))
    second = cli.given(lambda ledger: asked(ledger, prompt="second"))
    decided = cli.given(asked)
    cli.ok("approve", str(decided.run_id), "--request", "3")

    waiting_ = cli.ok("approvals", "--json", "--actor", "bob").lines
    assert [(one["run_id"], one["may_decide"]) for one in waiting_] == [
        (str(first.run_id), False),
        (str(second.run_id), True),
    ]
    assert "bob does not have the role finance" in waiting_[0]["bar"]
    cli.given(lambda ledger: grant(ledger.project, "finance", "bob", actor="ann"))
    mine = cli.ok("approvals", "--mine", "--actor", "bob", "--json").lines
    assert [one["prompt"] for one in mine] == ["first", "second"]
    assert '"first"' in cli.ok("approvals").out


def test_an_empty_inbox_is_no_error(cli: Cli) -> None:
    assert "no approval waits" in cli.ok("approvals").err
    assert cli.ok("approvals", "--json").out == ""


def test_what_several_must_approve_is_counted_wherever_it_is_shown(cli: Cli) -> None:
    lease = cli.given(lambda ledger: asked(ledger, approvals=2))
    run = str(lease.run_id)
    words = ("approve", run, "--request", "3", "--actor")

    assert cli.ok("approvals", "--json").lines[0]["approvals"] == 2
    assert "approved 1 of 2; the run waits for others" in cli.ok(*words, "ann").err

    assert "approved  1 of 2, by ann" in cli.ok("show", run).out
    assert " 1 of 2 " in cli.ok("approvals").out
    assert cli.ok("approvals", "--mine", "--actor", "ann").out == ""
    cli.fails(exits.CONFLICT, *words, "ann")
    assert "when a worker claims it" in cli.ok(*words, "bob").err
    told = cli.ok("history", run).out
    assert "1 of 2 approved" in told
    assert "2 of 2 approved" in told


async def _clock_ahead(ledger: Ledger) -> None:
    await set_clock(ledger.pool, timedelta(minutes=6))


def test_a_request_is_put_off_by_the_databases_clock(cli: Cli) -> None:
    run = str(cli.given(asked).run_id)
    cli.given(_clock_ahead)

    cli.ok("snooze", run, "--until", "2m", "--actor", "ann")

    assert cli.ok("approvals", "--mine", "--actor", "ann").out == ""


def test_a_request_is_put_off_and_shown_again(cli: Cli) -> None:
    run = str(cli.given(asked).run_id)
    assert "ann has put off nothing" in cli.ok("approvals", "--snoozed", "--actor", "ann").err

    cli.ok("snooze", run, "--until", "5m", "--actor", "ann")
    assert cli.ok("approvals", "--mine", "--actor", "ann").out == ""
    assert run in cli.ok("approvals", "--mine", "--actor", "bo").out
    assert run in cli.ok("approvals").out
    assert run in cli.ok("approvals", "--snoozed", "--actor", "ann").out
    assert cli("snooze", run, "--until", "3h", "--actor", "ann").code == exits.USAGE  # it lapses
    for never in ("infinity", "294000-01-01"):
        execute(cli.url, f"UPDATE ledger.snooze SET until = '{never}'")
        assert run in cli.ok("approvals", "--mine", "--actor", "ann").out
    assert cli("snooze", run, "--actor", "ann").code == exits.USAGE
    assert cli("snooze", run, "--until", "9" * 20, "--actor", "ann").code == exits.USAGE
    cli.ok("snooze", run, "--undo", "--actor", "ann")
    assert run in cli.ok("approvals", "--mine", "--actor", "ann").out
