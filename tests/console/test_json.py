"""`--json`: every command prints JSON, an object a line, and nothing else; and no secret."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from pyarrow import parquet

from runfold.console.cli.kit import exits
from runfold.ledger import Ledger, State
from runfold.ledger.postgres.connections import connect
from runfold.projections import CatchUp, install
from tests.support.console import Cli, cli, execute, leaves
from tests.support.logins import as_login
from tests.support.past_month import MONTH, in_that_month
from tests.support.projections import read, sizes
from tests.support.runs import claimed, waiting

__all__ = ["cli"]

SIZES: Final = sizes()
CANARY: Final = f"canary{secrets.token_hex(8)}"
URL: Final = f"https://ann:{CANARY}@host/"
UNTIL_A_SIGNAL: Final = {"up", "demo", "worker", "serve", "projections run", "mcp", "webhooks run"}
"""What they print for people goes to standard error; their logs are tested where they are."""
CALLS: Final = (
    "db upgrade", "db status", "db url", "project create second", "project list",
    "submit parse path=a.py", "runs", "runs --count", "show PENDING", "history PENDING",
    "state PENDING --at 1", "diff FAILED --from 1 --to 2", "trace FAILED", "rerun FAILED",
    "tail --no-follow --after start", "approvals",
    "snooze ASKED --until 4h", "approve ASKED --request 3",
    "reject ASKED_TOO --request 3 --reason no",
    "signal HELD go 1", "cancel PENDING", "workers", "reap --once", "doctor", "verify", "drift",
    "whatif --ttl 0.1s", "metrics --once",
    "projections list", "projections status", "projections status sizes", "projections show sizes",
    "projections pause sizes", "projections resume sizes",
    "projections rebuild sizes --module tests.console.test_json", "projections drop sizes",
    "kinds pause parse", "kinds limit parse 3", "kinds list", "kinds history parse",
    "kinds resume parse",
    "schedules add nightly parse --cron 0~3~*~*~*", "schedules list",
    "schedules pause nightly --reason why", "schedules resume nightly --reason why",
    "schedules run nightly --reason why",
    "schedules remove nightly",
    "roles grant finance ann", "roles list", "roles history", "roles revoke finance ann",
    "access grant w --rights read", "access list", "access history", "access check read",
    "access revoke w", "access token reader", "access tokens",
    "access revoke-token TOKEN", "access drop-reads 2020-01-01 --reason why",
    "users add ann --issuer https://id.example --subject 1", "users list", "users disable ann",
    "users enable ann", "top", "export PENDING --to FOLDER",
    "webhooks add https://example.com/hook", "webhooks list", "webhooks pause WEBHOOK",
    "webhooks resume WEBHOOK", "webhooks remove WEBHOOK",
    "archive hold MONTH --reason audit", "archive release MONTH --reason over",
    "archive export MONTH", "archive detach MONTH", "archive check FILE", "archive list",
    "archive history", "archive attach MONTH",
)  # fmt: skip

REFUSED: Final = (
    "projections skip sizes --reason why", "projections rebase", "users password ann",
    "users end-session 1", "webhooks resend 1", "webhooks deliveries 1",
)  # fmt: skip
"""What has nothing to do here: the error is JSON as well."""
EMPTY: Final = ("users sessions", "access reads")
"""Lists that have nothing in them here."""


async def given(ledger: Ledger) -> dict[str, str]:
    """Have runs in every state that a command asks for, a projection, and a month that is over."""
    failed = await claimed(ledger, "w:1", input={"password": CANARY, "see": URL})
    await ledger.fail(failed, error_code="E-X", error_detail={"traceback": f"password={CANARY}"})
    asked = await waiting(ledger, State.WAITING_APPROVAL, park=True)
    asked_too = await waiting(ledger, State.WAITING_APPROVAL, park=True)
    held = await claimed(ledger, "w:2")
    await read(ledger, held.run_id, "2")
    await install(ledger.pool, SIZES)
    await CatchUp(ledger.pool, SIZES).to_the_end()
    assert ledger.url is not None
    connection = await connect(ledger.url, "tests")
    async with in_that_month(connection):
        await ledger.complete(await claimed(ledger, "w:3", input={"api_key": CANARY}), URL)
    await connection.close()
    pending = await ledger.submit("parse")
    await ledger.submit("parse", deadline=0.001)  # which the reaper ends
    runs = {"FAILED": failed, "ASKED_TOO": asked_too, "ASKED": asked, "HELD": held}
    words = {word: str(lease.run_id) for word, lease in runs.items()}
    return {**words, "PENDING": str(pending.run_id), "MONTH": MONTH}


@contextmanager
def password_in_url(cli: Cli) -> Iterator[None]:
    """Have the program connect by a URL whose password is a canary."""
    url, name = cli.url, f"canary_{secrets.token_hex(6)}"
    [(owner,)] = execute(url, "SELECT current_user::text")
    execute(url, f"CREATE ROLE {name} LOGIN SUPERUSER PASSWORD '{CANARY}'")
    role = f"options=-c%20role%3D{owner}"
    cli.url = f"{as_login(url, name, CANARY)}{'&' if '?' in url else '?'}{role}"
    yield
    cli.url = url
    execute(url, f"REASSIGN OWNED BY {name} TO CURRENT_USER")
    execute(url, f"DROP ROLE {name}")


def kept(folder: Path) -> str:
    """All that stands in the files of a folder, those of an archive read as tables."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    tables = [path for path in files if path.suffix == ".parquet"]
    assert (len(files) > 3, len(tables)) == (True, 1)
    return str(
        [path.read_bytes() for path in files]
        + [parquet.read_table(path).to_pylist() for path in tables]
    )


@pytest.mark.slow
def test_every_command_prints_json_and_nothing_else_and_no_secret(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNFOLD_ARCHIVE", str(tmp_path))
    with password_in_url(cli):
        words = cli.given(given)
        wrong: list[tuple[str, object]] = []
        words["FOLDER"] = str(tmp_path / "evidence")
        made = {"canary": CANARY}
        for call in (*CALLS, *REFUSED, *EMPTY):
            answer = cli(*_words(call, words), "--json")
            data, problems = _lines(answer.out), _lines(answer.err)
            if not all(isinstance(line, dict) for line in data + problems):
                wrong.append((call, answer))
            if (answer.code, bool(data)) != (exits.OK, True) and call not in REFUSED + EMPTY:
                wrong.append((call, answer))
            said = "" if call == "db url" else answer.out + answer.err  # which is for programs
            wrong += [(name, call) for name, secret in made.items() if secret in said]
            for line in data:
                made |= {call: line["secret"]} if "secret" in line else {}
                words |= {"FILE": line["file"]} if call.startswith("archive export") else {}
                words |= {"WEBHOOK": str(line["webhook_id"])} if call == "webhooks list" else {}
                words |= {"TOKEN": line["token_id"]} if call == "access tokens" else {}

    assert wrong == [], "\n".join(map(str, wrong))
    assert len(made) == 3
    files = kept(tmp_path)
    assert [name for name, secret in made.items() if secret in files] == []


def test_every_command_refuses_an_empty_actor(cli: Cli) -> None:
    """Such as of a variable that is not set: the record would name somebody else."""
    words = cli.given(given)
    wanted = {name for name, leaf in leaves().items() if "actor" in leaf.callback.__annotations__}
    called: set[str] = set()
    wrong: list[tuple[str, object]] = []
    for call in (*CALLS, *REFUSED):
        for name in [name for name in wanted if f"{call} ".startswith(f"{name} ")]:
            answer = cli(*_words(call, words), "--actor", "")
            if (answer.code, answer.out) != (exits.USAGE, "") or "--actor ''" not in answer.err:
                wrong.append((call, answer))
            called.add(name)
    assert wrong == [], "\n".join(map(str, wrong))
    assert called == wanted


def test_no_command_is_left_out_of_the_table() -> None:
    every = set(leaves())
    called = {
        leaf
        for leaf in every
        for call in (*CALLS, *REFUSED, *EMPTY)
        if f"{call} ".startswith(f"{leaf} ")
    }

    assert every - called == UNTIL_A_SIGNAL


def _lines(text: str) -> list[Any]:
    """Return each line as what it is in JSON, or None."""
    found = []
    for line in text.splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            found.append(None)
    return found


def _words(call: str, known: dict[str, str]) -> list[str]:
    """Return a call's words, with what is known by a name in capitals."""
    return [known.get(word, word.replace("~", " ")) for word in call.split()]
