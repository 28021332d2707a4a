"""Every command against every right: the rule with which it is declared is what it asks for."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Final

import asyncpg
import pytest

from runfold.console.cli.commands import users
from runfold.console.cli.kit import exits
from runfold.console.cli.kit.rights import OWNER, in_words, sets_of
from runfold.ledger import Ledger, access, names
from runfold.ledger.postgres.server_roles import ROLES
from runfold.ledger.postgres.urls import driver_url
from tests.console.test_json import CALLS, EMPTY, REFUSED, given
from tests.support.console import Answer, Cli, cli, leaves
from tests.support.databases import PROJECT
from tests.support.logins import grant, login_of, with_login

__all__ = ["cli"]

ALL: Final = frozenset(access.RIGHTS)
WARNING: Final = f'"event": "{names.METRICS_LEFT_OUT}"'
"""The metrics say what they leave out, and show the rest."""
ENDLESS: Final = (
    "worker tests.support.handlers --processes 2",
    "projections run sizes --once --module tests.console.test_json",
    "webhooks run --once",
)
"""Those of the commands without an end that ask for a right."""
OWN: Final = {("history", frozenset({"work"}))}
"""What a right lets a login do with a run that it holds itself, and with no other."""
Scope = tuple[frozenset[str], bool]
"""Rights, and whether they are held in all projects."""


def rules() -> dict[str, str]:
    """Return the rule of every command, by its words."""
    return {name: leaf.callback.rights for name, leaf in leaves().items()}


def lacking(rule: str) -> list[tuple[Scope, str]]:
    """Return what is not enough for a rule, each with what the refusal says."""
    if rule == OWNER:
        return [((ALL, True), "only the owner of the schema may")]
    everywhere = rule.startswith("*")
    where = "all projects" if everywhere else f"project {PROJECT}"
    says = [
        f"lacks the right {' or '.join(rights)} in {where}: an admin" for rights in sets_of(rule)
    ]
    without = [
        ((ALL - set(rights), everywhere), said)
        for rights, said in zip(sets_of(rule), says, strict=True)
    ]
    return [*without, *([((ALL, False), says[0])] if everywhere else [])]


def enough(rule: str) -> list[Scope]:
    """Return each choice of rights that is enough for a rule; for one that asks nothing, any."""
    if rule == OWNER:
        return []
    chosen = {frozenset(choice) for choice in product(*sets_of(rule))} if rule else {frozenset()}
    return [
        (rights or frozenset({"erase"}), rule.startswith("*"))
        for rights in sorted(chosen, key=sorted)
    ]


class Asked:
    """The program, called by one login whose grant changes."""

    def __init__(self, url: str, cli: Cli, runner: asyncio.Runner) -> None:
        self.url, self._owner, self._runner = url, cli, runner
        self._login = Cli(url, cli.capsys)
        self._superuser = runner.run(asyncpg.connect(driver_url(cli.url)))
        self._held: dict[str, frozenset[str]] = {}
        self.words: dict[str, str] = {}

    def hold(self, scope: Scope) -> None:
        """Grant the login these rights and no others."""
        rights, everywhere = scope
        for project in (PROJECT, access.EVERYWHERE):
            wanted = frozenset(rights) if everywhere == (project == "*") else frozenset()
            if self._held.get(project, frozenset()) != wanted:
                granted = grant(
                    self._superuser, login_of(self.url), sorted(wanted), project=project
                )
                self._runner.run(granted)
                self._held[project] = wanted

    def answer(self, call: str, scope: Scope) -> Answer:
        """Call the program with these rights."""
        self.hold(scope)
        own = {**self.words, "PENDING": self.words["OWN"]}
        words = own if (call.split(maxsplit=1)[0], scope[0]) in OWN else self.words
        answer = self._login(*(words.get(w, w.replace("~", " ")) for w in call.split()), "--json")
        for line in answer.lines if call in {"webhooks list", "access tokens"} else ():
            self.words |= {
                "WEBHOOK": str(line.get("webhook_id")),
                "TOKEN": str(line.get("token_id")),
            }
        return answer

    def close(self) -> None:
        """Leave the database."""
        self._runner.run(self._superuser.close())


@pytest.fixture
def asked(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Asked]:
    """A login, with runs in every state; one of them is its own."""
    monkeypatch.setenv("RUNFOLD_ARCHIVE", str(tmp_path))
    monkeypatch.setattr(users, "_password", lambda: "correct horse battery staple")
    words = cli.given(given)
    with asyncio.Runner() as runner:
        login = with_login(cli.url, *ROLES)
        opened = Asked(runner.run(login.__aenter__()), cli, runner)
        opened.hold((frozenset({"work"}), False))
        own = runner.run(_claimed(opened.url))
        opened.words = {**words, "OWN": own, "FOLDER": str(tmp_path / "e"), "FILE": str(tmp_path)}
        yield opened
        opened.close()
        runner.run(login.__aexit__(None, None, None))


async def _claimed(url: str) -> str:
    async with Ledger.open(url, PROJECT) as ledger:
        [lease] = await ledger.claim("own:1", limit=1)
        return str(lease.run_id)


@pytest.mark.slow
def test_every_command_asks_for_the_rights_that_it_is_declared_with(
    asked: Asked, subtests: pytest.Subtests
) -> None:
    """Whoever lacks one is refused with every other right; whoever has them alone is not."""
    declared, called = rules(), set()
    for call in (*CALLS, *REFUSED, *EMPTY, *ENDLESS):
        [name] = [name for name in declared if f"{call} ".startswith(f"{name} ")]
        is_first, rule = name not in called, declared[name]
        called.add(name)
        with subtests.test(call):
            for scope, said in lacking(rule) if is_first else ():
                refused = asked.answer(call, scope)
                assert (refused.code, refused.out) == (exits.ERROR, ""), (scope, refused)
                assert said in refused.error["message"], (scope, refused)
            for scope in enough(rule) if call not in ENDLESS[:1] else ():
                answer = asked.answer(call, scope)
                errors = [line for line in answer.err.splitlines() if WARNING not in line]
                assert not re.search("lacks|only the owner", "\n".join(errors)), (scope, answer)
                if call in CALLS and not call.startswith(("archive check", "access check")):
                    assert answer.code == exits.OK, (scope, answer)
    assert {name for name in declared if declared[name]} - called == {"up"}


def test_the_page_of_access_has_the_table_of_commands() -> None:
    """Generated here: a rule in words, and the commands that are declared with it."""
    commands: dict[str, list[str]] = {}
    for name, rule in rules().items():
        commands.setdefault(rule, []).append(f"`{name}`")
    in_order = sorted(commands, key=lambda rule: (not rule, rule == OWNER, rule.startswith("*")))
    table = "\n".join(f"| {_words(rule)} | {', '.join(commands[rule])} |" for rule in in_order)

    page = (Path(__file__).parents[2] / "docs/howto/access.md").read_text()

    assert f"\n{table}\n" in page, table


def _words(rule: str) -> str:
    if rule == OWNER:
        return "the owner of the schema"
    return in_words(rule) if rule else "nothing more than a role"
