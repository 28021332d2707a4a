"""What doctor says of what reads the feed: projections and webhooks that stand still, and why."""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta
from typing import Any

import pytest

from runfold import Ledger
from runfold.projections import Projection
from runfold.projections.declared.catch_up import CatchUp
from runfold.projections.declared.installing import install
from runfold.projections.errors import ProjectionFailed
from runfold.workers.duties.webhooks.deliverer import Terms
from runfold.workers.duties.webhooks.posting import Answer, Poster
from runfold.workers.duties.webhooks.sender import WebhookSender
from tests.support.clock import set_clock
from tests.support.console import Cli, execute
from tests.support.logins import with_login
from tests.support.projections import read, sizes

MINUTES, DAYS = timedelta(minutes=2), timedelta(days=2)


@pytest.fixture
def cli(unverified_database: str, capsys: pytest.CaptureFixture[str]) -> Cli:
    """The program on a database that the test damages."""
    return Cli(unverified_database, capsys)


def told(cli: Cli, name: str) -> tuple[str, str]:
    """The level and the detail of one check; for how long is left out."""
    answer = cli("doctor", "--json")
    [check] = (check for check in answer.json["checks"] if check["name"] == name)
    return check["level"], re.sub(r"[0-9]\w+ ago", "T ago", check["detail"])


def later(cli: Cli, by: timedelta) -> None:
    """Let the time of the ledger pass."""
    cli.given(lambda ledger: set_clock(ledger.pool, by))


async def refuse(*_: Any) -> None:
    raise ValueError("not this one")


def test_a_projection_that_stopped_is_a_fault(cli: Cli) -> None:
    run = cli.submitted()
    mails = Projection("mails", 1, apply=refuse)

    async def stopped(ledger: Ledger) -> None:
        await install(ledger.pool, mails)
        with pytest.raises(ProjectionFailed):
            await CatchUp(ledger.pool, mails).to_the_end()

    cli.given(stopped)

    assert told(cli, "projections") == (
        "failed",
        f"mails has stopped at version 1 of run {run}: `runfold projections status mails` says why",
    )


def test_a_projection_that_lost_its_checkpoint_is_a_fault(cli: Cli) -> None:
    cli.submitted()
    cli.ok("projections", "run", "--once", "spending")
    for damage in ("generation = 9", "snapshot = 'nonsense'", "position = -1"):
        execute(cli.url, f"UPDATE ledger.projection SET {damage}")

        assert told(cli, "projections") == (
            "failed",
            "spending cannot go on from its checkpoint: `runfold projections rebuild spending`",
        )


def test_a_projection_that_nobody_runs_is_named_and_a_paused_one_later(cli: Cli) -> None:
    cli.submitted()
    cli.ok("projections", "run", "--once", "spending", "attempts")
    later(cli, MINUTES)
    assert told(cli, "projections") == ("ok", "2 projections in order")
    cli.submitted()
    assert told(cli, "projections") == ("ok", "2 projections in order")
    cli.ok("projections", "pause", "attempts")
    later(cli, 2 * MINUTES)

    assert told(cli, "projections") == (
        "warning",
        (
            "spending has not read an event of T ago: "
            "keep `runfold projections run` running; its log says what stops it"
        ),
    )

    cli.ok("projections", "run", "--once", "spending")
    later(cli, DAYS)
    cli.ok("projections", "run", "--once", "spending")

    assert told(cli, "projections") == (
        "warning",
        (
            "attempts is paused and has not read an event of T ago: "
            "`runfold projections resume attempts`, or `drop attempts`"
        ),
    )


def test_a_projection_that_was_never_read_is_named(cli: Cli) -> None:
    cli.given(lambda ledger: install(ledger.pool, sizes()))
    assert told(cli, "projections") == ("ok", "1 projection in order")
    cli.submitted()
    later(cli, MINUTES)

    assert told(cli, "projections")[1].startswith("sizes has not read an event of T ago: ")


def test_a_projection_without_runs_that_it_set_aside_is_named(cli: Cli) -> None:
    async def aside(ledger: Ledger) -> None:
        run = await ledger.submit("parse")
        await read(ledger, run.run_id, '"many"')
        await install(ledger.pool, sizes())
        await CatchUp(ledger.pool, sizes()).to_the_end()

    cli.given(aside)

    assert told(cli, "projections") == (
        "warning",
        "sizes is without 1 run that it has set aside: `runfold projections status sizes` says why",
    )


class Endpoint(Poster):
    """An endpoint that takes deliveries, or fails."""

    def __init__(self, *, takes: bool) -> None:
        self._answer = Answer(204, None, 1) if takes else Answer(500, "HTTP 500", 1)

    async def post(self, *_: object) -> Answer:
        """Answer at once."""
        return self._answer


def sent(cli: Cli, *, taken: bool = True) -> None:
    """Send to the webhooks what is new and due, once."""
    terms = Terms(Endpoint(takes=taken))
    cli.given(lambda ledger: WebhookSender(ledger, terms).once())


def hooked(cli: Cli) -> str:
    """Add a webhook."""
    return str(cli.ok("webhooks", "add", "https://example.com/a", "--json").json["webhook_id"])


def test_a_webhook_that_nobody_sends_to_is_named_and_a_paused_one_later(cli: Cli) -> None:
    hook = hooked(cli)
    cli.submitted()
    assert told(cli, "webhooks") == ("ok", "1 webhook in order")
    later(cli, MINUTES)

    assert told(cli, "webhooks") == (
        "warning",
        (
            f"{hook} in project test has not read an event of T ago: "
            "keep `runfold webhooks run` running"
        ),
    )

    cli.ok("webhooks", "pause", hook)
    assert told(cli, "webhooks") == ("ok", "1 webhook in order")
    later(cli, DAYS)

    assert told(cli, "webhooks") == (
        "warning",
        (
            f"{hook} in project test is paused and has not read an event of T ago: "
            f"`runfold webhooks resume {hook}`, or `remove {hook}`"
        ),
    )


def test_deliveries_that_are_due_and_those_that_fail_are_named(cli: Cli) -> None:
    hook = hooked(cli)
    cli.submitted()
    sent(cli, taken=False)
    assert told(cli, "webhooks") == ("ok", "1 webhook in order")
    later(cli, MINUTES)

    assert told(cli, "webhooks") == (
        "warning",
        (
            f"{hook} in project test has 1 delivery that should have been sent a minute ago: "
            "does `runfold webhooks run` run, and does the endpoint answer soon?"
        ),
    )

    for hours in range(1, 10):
        later(cli, timedelta(hours=40 * hours))
        sent(cli, taken=False)
        failing = f"{hook} in project test has not taken 1 delivery: "
        says_why = f"`runfold webhooks deliveries {hook}` says why"
        if hours > 1:
            assert told(cli, "webhooks") == ("warning", failing + says_why)
    [given_up] = cli.ok("webhooks", "deliveries", hook, "--json").lines
    assert given_up["outcome"] == "given_up"
    cli.ok("webhooks", "resend", given_up["delivery_id"])
    sent(cli)

    assert told(cli, "webhooks") == ("ok", "1 webhook in order")


@pytest.mark.parametrize("damage", ["follows = true", "next_at = 'infinity'"])
def test_a_delivery_that_would_never_be_due_is_named_with_its_remedy(cli: Cli, damage: str) -> None:
    hook = hooked(cli)
    run = cli.submitted()
    cli.ok("cancel", str(run))
    sent(cli, taken=False)
    execute(cli.url, f"UPDATE ledger.delivery SET {damage} WHERE version = 1")

    level, detail = told(cli, "webhooks")

    assert (level, detail.partition(": ")[0]) == (
        "warning",
        f"{hook} in project test has a delivery that would never be due",
    )
    remedy = detail.partition("`runfold ")[2].rstrip("`")
    assert remedy.startswith(f"webhooks resend {hook}_{run}_1_")
    cli.ok(*remedy.split())
    sent(cli)
    assert told(cli, "webhooks") == ("ok", "1 webhook in order")


def test_a_webhook_that_lost_its_checkpoint_or_its_secret_is_a_fault(cli: Cli) -> None:
    hook = hooked(cli)
    cli.submitted()
    for checkpoint in ("nonsense", "9/1:1:@0//0", "1/1:1:@0//99999999999999999999"):
        execute(cli.url, "UPDATE ledger.webhook SET checkpoint = $1", checkpoint)

        assert told(cli, "webhooks") == (
            "failed",
            (
                f"{hook} in project test cannot go on from its checkpoint: "
                f"`runfold webhooks pause {hook}`, and `resume {hook} --from-now`"
            ),
        )
    cli.ok("webhooks", "pause", hook)
    cli.ok("webhooks", "resume", hook, "--from-now")
    assert told(cli, "webhooks")[0] == "ok"

    execute(cli.url, "DELETE FROM ledger.webhook_secret")

    assert told(cli, "webhooks") == (
        "failed",
        (
            f"{hook} in project test has lost its secret, and is sent nothing: "
            f"`runfold webhooks remove {hook}`, and add it again"
        ),
    )


def test_the_worst_comes_first_and_the_rest_is_counted(cli: Cli) -> None:
    cli.submitted()
    cli.ok("projections", "run", "--once")
    execute(cli.url, "UPDATE ledger.projection SET generation = 9 WHERE name = 'spending'")
    cli.submitted()
    later(cli, MINUTES)

    level, detail = told(cli, "projections")

    assert level == "failed"
    assert detail.startswith("spending cannot go on")
    assert detail.endswith("; 2 more")


def test_a_login_that_sees_none_of_them_is_told_so(
    cli: Cli, capsys: pytest.CaptureFixture[str]
) -> None:
    hooked(cli)

    async def said(*rights: str) -> tuple[dict[str, str], dict[str, str]]:
        async with with_login(cli.url, "runfold_reader", rights=rights) as url:
            answer = await asyncio.to_thread(Cli(url, capsys), "doctor", "--json")
        checks = {check["name"]: check for check in answer.json["checks"]}
        return checks["projections"], checks["webhooks"]

    projections, webhooks = asyncio.run(said("read"))
    assert (projections["level"], webhooks["level"]) == ("warning", "warning")
    assert "cannot be checked here: login_" in projections["detail"]
    assert projections["detail"].endswith("lacks the right read or audit in all projects")
    assert webhooks["detail"].endswith("lacks the right audit or admin in all projects")

    _, webhooks = asyncio.run(said("audit"))
    assert (webhooks["level"], webhooks["detail"]) == ("ok", "1 webhook in order")
