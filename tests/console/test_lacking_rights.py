"""What a command does for a login that has some of the rights that it needs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from uuid import UUID

import pytest

from runfold.console.cli.kit import exits
from runfold.ledger import State, access
from tests.support.console import Cli
from tests.support.logins import with_login
from tests.support.runs import waiting

ROLES = ("runfold_worker", "runfold_auditor", "runfold_projector")
NOWHERE = "01a22335-cb51-73b0-ae5c-5a08e0a49e96"
Login = Callable[..., Cli]


@pytest.fixture
def login(database: str, capsys: pytest.CaptureFixture[str]) -> Iterator[Login]:
    """Returns a function that gives the program of a login with some rights and every role."""
    with asyncio.Runner() as runner:
        opened = []

        def of(*rights: str) -> Cli:
            made = with_login(database, *ROLES, rights=rights)
            opened.append(made)
            return Cli(runner.run(made.__aenter__()), capsys)

        yield of
        for made in opened:
            runner.run(made.__aexit__(None, None, None))


@pytest.fixture
def owner(database: str, capsys: pytest.CaptureFixture[str]) -> Cli:
    """The program of the ledger's owner."""
    return Cli(database, capsys)


def test_a_run_that_its_submitter_may_not_read_is_submitted_and_its_id_printed(
    login: Login, owner: Cli
) -> None:
    submitter = login("submit")

    plain, as_json = submitter.ok("submit", "parse"), submitter.ok("--json", "submit", "parse")

    assert "lacks the right read" in plain.err
    assert as_json.json.keys() == {"created", "run_id"}
    for run_id in (plain.out.strip(), as_json.json["run_id"]):
        assert owner.ok("--json", "show", str(UUID(run_id))).json["kind"] == "parse"


def test_a_request_that_is_not_seen_is_decided_by_its_number_and_no_other_way(
    login: Login, owner: Cli
) -> None:
    asked = owner.given(lambda ledger: waiting(ledger, State.WAITING_APPROVAL, park=True))
    run, decider = str(asked.run_id), login("decide")

    for words in (("approve", run), ("reject", run), ("snooze", run, "--until", "4h")):
        assert "lacks the right read" in decider.fails(exits.ERROR, *words).err
    shortened = decider.fails(exits.ERROR, "approve", run[:13], "--request", "3").err
    assert "lacks the right read or work or audit in project test" in shortened
    decider.fails(exits.CONFLICT, "approve", run, "--request", "2")
    decider.fails(exits.NOT_FOUND, "approve", NOWHERE, "--request", "3")
    assert decider.ok("--json", "approve", run, "--request", "3").json["run_id"] == run


def test_an_option_that_asks_for_more_says_so(login: Login, owner: Cli) -> None:
    owner.ok("submit", "parse")
    submitter, reader = login("submit"), login("read", "audit", "admin")
    for program, call, said in (
        (submitter, "cancel --query kind:parse --reason why --count 1", "right read in project"),
        (submitter, "rerun --query kind:parse --reason why --count 1", "right read in project"),
        (reader, "access history --all-projects", "right audit in all projects"),
        (reader, "access grant w --rights read --all-projects", "right admin in all projects"),
        (reader, "drift --repair --reason why", "only the owner of the schema may"),
        (reader, "archive export 2020-01 --dry-run", "only the owner of the schema may"),
    ):
        assert said in program.fails(exits.ERROR, *call.split()).err


def test_a_name_of_others_gets_the_answer_of_a_name_that_is_nowhere(
    login: Login, owner: Cli, subtests: pytest.Subtests
) -> None:
    """Names of another project for whoever has every right here, and any name for the others."""
    theirs, known = Cli(owner.url, owner.capsys, "zz-theirs"), {}
    owner.ok("project", "create", "zz-theirs")
    for there, of in ((theirs, "theirs"), (owner, "ours")):
        there.ok("schedules", "add", of, of, "--cron", "0 3 * * *", "--ahead")
        known[of] = {
            "RUN": str(there.submitted(of)),
            "WEBHOOK": there.ok("--json", "webhooks", "add", "https://example.com/a")
            .json["webhook_id"],
            "NAME": of,
        }  # fmt: skip
        owner.ok("users", "add", of, "--issuer", "https://id.example", "--subject", of)
    known["nowhere"] = {"RUN": NOWHERE, "WEBHOOK": "wh_000000000000", "NAME": "nowhere"}
    calls = (
        "show RUN", "history RUN", "state RUN --at 1", "diff RUN --from 1", "trace RUN",
        "verify RUN", "rerun RUN", "approve RUN --request 1", "reject RUN --request 1",
        "snooze RUN --until 4h", "signal RUN go", "cancel RUN", "runs --kind NAME",
        "runs --before RUN", "kinds history NAME", "kinds pause NAME",
        "schedules pause NAME --reason why", "schedules run NAME --reason why",
        "schedules remove NAME", "webhooks pause WEBHOOK", "webhooks deliveries WEBHOOK",
        "webhooks remove WEBHOOK", "users disable NAME", "access reads --run RUN",
    )  # fmt: skip
    # Without a right no name is looked up, so a few of the calls are enough.
    for rights, of, tried in ((access.RIGHTS, "theirs", calls), (("erase",), "ours", calls[::6])):
        program = login(*rights)
        for call in tried:
            answers = []
            for words in (known[of], known["nowhere"]):
                answer = program(*(words.get(word, word) for word in call.split()))
                told = answer.out + answer.err
                for name, word in words.items():
                    told = told.replace(word, name)
                answers.append((answer.code, told))
            with subtests.test(f"{call} with {', '.join(rights)}"):
                assert answers[0] == answers[1]


def test_metrics_say_which_of_them_the_login_may_not_see(login: Login, owner: Cli) -> None:
    owner.ok("projections", "run", "--once")
    shown = "runfold_projection_stopped{"

    assert shown in owner.ok("metrics", "--once").out
    narrow = login("read").ok("metrics", "--once")

    assert shown not in narrow.out
    assert "metrics_left_out" in narrow.err
    assert "lacks the right read or audit in all projects" in narrow.err
    assert "runfold access grant --all-projects" in narrow.err
