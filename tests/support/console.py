"""The command line, called within the process of a test."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

import asyncpg
import pytest
import structlog
import typer

from runfold.console.cli.kit import exits
from runfold.console.cli.main import Program, app, main
from runfold.ledger import Ledger, State
from runfold.ledger.postgres.urls import driver_url
from tests.support.databases import PROJECT
from tests.support.keeping import KEEPER
from tests.support.runs import claimed

T = TypeVar("T")


@dataclass(frozen=True)
class Answer:
    """What one call of the program gave."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object that was printed."""
        (line,) = self.out.splitlines()
        return dict(json.loads(line))

    @property
    def lines(self) -> list[Any]:
        """The JSON objects that were printed, one a line."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def error(self) -> dict[str, Any]:
        """The JSON error that was said."""
        (line,) = self.err.splitlines()
        found = json.loads(line)
        assert list(found) == ["error"]
        return dict(found["error"])


class Cli:
    """The program, called within this process on one database and project."""

    def __init__(
        self, url: str, capsys: pytest.CaptureFixture[str], project: str = PROJECT
    ) -> None:
        self.url, self.capsys, self.project = url, capsys, project

    def __call__(self, *words: str) -> Answer:
        """Call the program, whatever its end."""
        self.capsys.readouterr()
        try:
            with KEEPER.programs():
                code = main(["--url", self.url, "--project", self.project, *words])
        finally:
            structlog.reset_defaults()
        said = self.capsys.readouterr()
        assert "Traceback" not in said.err
        return Answer(code, said.out, said.err)

    def ok(self, *words: str) -> Answer:
        """Call the program, which must succeed."""
        answer = self(*words)
        assert answer.code == exits.OK, answer
        return answer

    def fails(self, code: int, *words: str) -> Answer:
        """Call the program, which must print one line of error, no data, and end with this code."""
        answer = self(*words)
        assert answer.code == code, answer
        assert answer.out == ""
        (line,) = answer.err.splitlines()
        assert line.startswith(("error: ", '{"error": '))
        return answer

    def submitted(self, *words: str) -> UUID:
        """Submit a run."""
        return UUID(self.ok("submit", *(words or ("parse",))).out.strip())

    def given(self, prepare: Callable[[Ledger], Awaitable[T]]) -> T:
        """Bring the ledger to where a test needs it."""

        async def prepared() -> T:
            async with Ledger.open(self.url, self.project) as ledger:
                return await prepare(ledger)

        with KEEPER.programs():
            return asyncio.run(prepared())


def leaves() -> dict[str, Any]:
    """Return every command that does something, by its words."""
    program = typer.main.get_command(app)
    assert isinstance(program, Program)
    leaves: dict[str, Any] = {}
    for entry in program.entries:
        command: Any = program.load(entry.name)
        within = getattr(command, "commands", None) or {"": command}
        leaves |= {f"{entry.name} {inner}".strip(): leaf for inner, leaf in within.items()}
    return leaves


def execute(url: str, statement: str, *values: object) -> list[Any]:
    """Run one statement as the superuser."""

    async def executed() -> list[Any]:
        connection = await asyncpg.connect(driver_url(url))
        try:
            return list(await connection.fetch(statement, *values))
        finally:
            await connection.close()

    return asyncio.run(executed())


@pytest.fixture
def cli(database: str, capsys: pytest.CaptureFixture[str]) -> Cli:
    """The program on the test's database."""
    return Cli(database, capsys)


async def failed(ledger: Ledger) -> UUID:
    lease = await claimed(ledger, "w:1", input={"path": "a.py"})
    await ledger.retry(lease, error_code="E-HTTP", error_detail={"status": 500})
    (lease,) = await ledger.claim("w:2")
    await ledger.transition(
        lease, State.COMPLETED, output={"lines": 3}, cost_usd_delta=0.25, step_count_delta=2
    )
    return lease.run_id
