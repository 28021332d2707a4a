"""Secrets in what a handler does: neither stored nor shown, and the same at every attempt."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import asyncpg
import psutil  # type: ignore[import-untyped]
import pytest
from mcp import Client
from pydantic import BaseModel, SecretStr
from structlog.testing import capture_logs

from runfold.console.agents.asking import Asking
from runfold.console.agents.server import server
from runfold.console.cli.kit.session import configure_log
from runfold.ledger import Ledger, State, access, api_tokens, log, names
from runfold.ledger.errors import DatabaseUnavailable, LedgerError
from runfold.ledger.events import NoteAdded, StepFailed
from runfold.ledger.postgres.access_holes import access_holes
from runfold.ledger.postgres.urls import driver_url
from runfold.ledger.redaction import MARK
from runfold.projections.telemetry import metrics
from runfold.workers import Context, Fail, handler
from runfold.workers.attempt import Attempt
from runfold.workers.duties.reaper import Reaper
from runfold.workers.duties.webhooks.deliverer import Terms
from runfold.workers.duties.webhooks.posting import Poster
from runfold.workers.duties.webhooks.sender import WebhookSender
from tests.support.databases import PROJECT, name_of
from tests.support.logins import with_login
from tests.support.receiver import receiving
from tests.support.waiting import until
from tests.support.working import done, ended, reached, working

CANARY = f"canary{secrets.token_hex(8)}"
SEEN: list[Any] = []


class Session(BaseModel):
    token: str


class Counted(BaseModel):
    token: int


@handler("steps")
async def steps(ctx: Context, _: Any) -> Any:
    SEEN.append(await ctx.step("log in", lambda: {"token": CANARY, "user": "ann"}))
    await ctx.sleep(0.01)
    SEEN.append((await ctx.step("open", open_session)).token)
    return {"password": CANARY}


def open_session() -> Session:
    return Session(token=CANARY)


def count() -> Counted:
    return Counted(token=4711)


@handler("count")
async def counting(ctx: Context, _: Any) -> None:
    await ctx.step("count", count)


async def test_a_handler_gets_of_a_step_what_the_next_attempt_would_get(ledger: Ledger) -> None:
    SEEN.clear()

    run = await done(ledger, steps)

    assert SEEN[-2:] == [{"token": MARK, "user": "ann"}, MARK]
    assert run.output == {"password": MARK}


async def test_a_result_whose_type_takes_no_mark_fails_its_step_and_says_why(
    ledger: Ledger,
) -> None:
    run = await done(ledger, counting, max_attempts=1)

    assert run.state == State.FAILED
    [failed] = [e for e in await ledger.history(run.run_id) if isinstance(e, StepFailed)]
    assert "RUNFOLD_REDACT_NAMES" in str(failed.error_detail)
    assert "4711" not in str(failed.error_detail)


@handler("leaks")
async def leaks(ctx: Context, given: dict[str, Any]) -> Any:
    await ctx.note(f"connecting with password={CANARY}")
    await ctx.step("named", lambda: {"api_key": CANARY})
    await ctx.tool("send", send, {"authorization": f"Bearer {CANARY}"}, SecretStr(CANARY))
    with pytest.raises(Exception, match="refused"):
        await ctx.step("fails", fails)
    await ctx.approval(f"Use postgresql://ann:{CANARY}@host?", show={"secret": CANARY})
    await ctx.wait_for("go")
    match given["how"]:
        case "returns":
            return {"session_token": CANARY}
        case "fails":
            return Fail("E-APP-001", {"password": CANARY, "url": f"amqp://u:{CANARY}@h"})
    password = f"{CANARY}"
    raise ValueError(f"password={password} refused", {"password": password})


def send(*_: Any) -> dict[str, str]:
    return {"cookie": CANARY}


def fails() -> None:
    raise RuntimeError(f"refused: postgresql://ann:{CANARY}@host/db")


@pytest.fixture
async def watched(database: str) -> AsyncIterator[list[str]]:
    """What other sessions run, and what stands in the command lines of processes, all the time."""
    connection = await asyncpg.connect(driver_url(database))
    seen: list[str] = []

    async def watch() -> None:
        while True:
            rows = await connection.fetch("SELECT query, application_name FROM pg_stat_activity")
            seen.append(str([tuple(row) for row in rows]))
            await asyncio.sleep(0.05)

    watching = asyncio.create_task(watch())
    yield seen
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    await connection.close()


async def test_a_canary_is_found_nowhere(
    ledger: Ledger, database: str, watched: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Sent through every road, it is in no table, log, error, statement, process or metric.

    Nor does anybody hear it who is told of the run: a webhook, or an agent.
    """
    told: list[object] = []
    with capture_logs() as lines:
        for how in ("returns", "fails", "raises"):
            given = {"how": how, "password": CANARY, "text": f"https://u:{CANARY}@h/"}
            run = await ledger.submit("leaks", given, key=how, max_attempts=1)
            async with working(ledger, leaks):
                waiting = await reached(ledger, run, State.WAITING_APPROVAL)
                await ledger.approve(waiting, actor="ann", reason=f"token={CANARY}")
                await ledger.signal(run.run_id, "go", {"password": CANARY})
                told.append(await ended(ledger, run))
        told.append(await ledger.history(run.run_id))
        await ledger.append(run.run_id, NoteAdded(text=f"Authorization: Bearer {CANARY}"))
        await ledger.schedule("nightly", "leaks", {"secret": CANARY}, cron="0 3 * * *")
        called_off = await ledger.submit("other", [{"pwd": CANARY}])
        await ledger.cancel(called_off.run_id, reason=f"api_key={CANARY}")
        told += await _errors(ledger, database)
        told += await _deliveries(ledger)
        told += await _answers_to_an_agent(ledger, run.run_id)
        told.append(await metrics.look(ledger.pool))
    told += [lines, watched, *capsys.readouterr(), _command_lines()]

    assert CANARY not in str(told)
    assert await _found_in_tables(ledger.pool, CANARY) == []
    assert CANARY not in await _server_log(ledger.pool)


async def _deliveries(ledger: Ledger) -> list[object]:
    """What a webhook is sent of a run that fails, and what is on record of that."""
    async with receiving() as receiver:
        webhook, _ = await ledger.webhooks.add(receiver.url)
        await ledger.submit("told", {"password": CANARY})
        [lease] = await ledger.claim("w", kinds=["told"])
        await ledger.fail(lease, error_code="E-1", error_detail=f"password={CANARY}")
        receiver.answers = [500]
        for _ in range(2):
            await WebhookSender(ledger, Terms(Poster(loopback=True))).once()
    assert receiver.requests
    return [receiver.requests, await ledger.webhooks.deliveries(webhook)]


async def _answers_to_an_agent(ledger: Ledger, run_id: UUID) -> list[object]:
    """What the MCP server answers about a run, and to a question with a secret in it."""
    run, answers = str(run_id), []
    async with Client(server(await Asking.begin(ledger, None))) as agent:
        for tool, asked in (
            ("show_run", {}), ("run_history", {}), ("why_did_it_fail", {}), ("verify_run", {}),
            ("state_at", {"version": 1}), ("diff_run", {"start": 1}),
        ):  # fmt: skip
            answer = await agent.call_tool(tool, {"run_id": run, **asked})
            assert not answer.is_error, answer
            answers.append(answer)
        answers.append(await agent.call_tool("find_runs", {"query": f"password={CANARY}"}))
        answers.append(await agent.call_tool("show_run", {"run_id": f"https://u:{CANARY}@h/"}))
    return list(answers)


async def _errors(ledger: Ledger, database: str) -> list[str]:
    """The errors of roads that lead nowhere, with secrets on them."""
    told = []
    for url in (
        f"postgresql://ann:{CANARY}@127.0.0.1:1/runs",
        f"postgresql://127.0.0.1:1/runs?user=ann&password={CANARY}",
    ):
        with pytest.raises((DatabaseUnavailable, LedgerError)) as refused:
            async with Ledger.open(url, PROJECT):
                pass
        told.append(f"{refused.value!r} {refused.value}")
    for key in (f"password={CANARY}\n", f"amqp://u:{CANARY}@h" * 20):
        with pytest.raises(LedgerError) as refused:
            await ledger.submit("leaks", key=key)
        told.append(str(refused.value))
    return told


def _command_lines() -> str:
    return str([process.info["cmdline"] for process in psutil.process_iter(["cmdline"])])


async def _found_in_tables(pool: Any, secret: str) -> list[str]:
    """Name the tables of the database that have the secret in a row."""
    tables = await pool.fetch(
        "SELECT c.oid::regclass::text AS name FROM pg_class AS c JOIN pg_namespace AS n"
        " ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'm')"
        " AND n.nspname IN ('ledger', 'projection', 'public')"
    )
    assert len(tables) > 20
    return [
        table["name"]
        for table in tables
        if await pool.fetchval(
            f"SELECT count(*) FROM {table['name']} AS t WHERE t::text LIKE '%' || $1 || '%'", secret
        )
    ]


async def _server_log(pool: Any) -> str:
    """What the server has logged, where it logs into a file."""
    written: str | None = await pool.fetchval(
        "SELECT pg_read_file(f) FROM pg_current_logfile() AS f WHERE f IS NOT NULL"
    )
    return written or ""


async def test_the_secret_of_an_api_token_is_found_nowhere(
    ledger: Ledger, database: str, watched: list[str]
) -> None:
    with capture_logs() as lines:
        credential, secret = await api_tokens.make_token(ledger.project, "ci", reason="for builds")
        await access.grant(ledger.project, credential, ["submit"], actors=["ci"])
        run = await ledger.submit("parse", {"note": f"use {secret}", "other": secret})
        async with with_login(database, "runfold_worker") as url:
            connection = await asyncpg.connect(driver_url(url))
            assert await connection.fetchval("SELECT ledger.use_token($1)", secret) == credential
            await connection.execute("SELECT set_config('runfold.token', $1, false)", secret)
            with pytest.raises(asyncpg.PostgresError) as refused:
                await connection.fetch("SELECT * FROM ledger.reap('test', 'reaper', 1)")
            looks = len(watched)
            await until(lambda: len(watched) > looks + 1)  # one that began after the statement
            await connection.close()
        with pytest.raises(LedgerError) as unknown:
            await api_tokens.revoke_token(ledger.project, secret)

    told = [run, lines, watched, str(refused.value), str(unknown.value), _command_lines()]
    assert secret not in str(told)
    assert await _found_in_tables(ledger.pool, secret) == []
    assert secret not in await _server_log(ledger.pool)


async def test_a_server_that_logs_statements_keeps_secrets_out_where_doctor_is_content(
    ledger: Ledger, database: str
) -> None:
    set_for_new_sessions = f"ALTER DATABASE {name_of(database)} SET"
    seen = []
    for setting in ("log_min_duration_statement", "log_parameter_max_length"):
        await ledger.pool.execute(f"{set_for_new_sessions} {setting} = 0")
        secret = f"runfold_{secrets.token_hex(16)}"
        connection = await asyncpg.connect(driver_url(database))
        await connection.fetchval("SELECT ledger.use_token($1)", secret)
        named = [hole.hole for hole in await access_holes(connection) if "parameters" in hole.hole]
        await connection.execute(f"SELECT 'after {setting}'")
        await connection.close()

        async def is_written(last: str = f"after {setting}") -> bool:
            written = await _server_log(ledger.pool)
            return not written or last in written

        await until(is_written)
        seen.append((len(named), secret in await _server_log(ledger.pool)))

    is_readable = bool(await _server_log(ledger.pool))
    assert seen == [(1, is_readable), (0, False)]


@handler("quiet")
async def quiet(_: Context) -> None:
    raise AssertionError("it is not called")


def crash(*_: Any) -> Any:
    raise RuntimeError(f"refused: password={CANARY}") from ValueError(f"amqp://u:{CANARY}@h")


async def test_what_crashes_beside_a_handler_is_logged_with_its_place_and_without_secrets(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A defect in the worker itself, in an attempt and in a duty, whose error has a secret."""
    monkeypatch.setattr(Attempt, "work", crash)
    monkeypatch.setattr(Reaper, "run", crash)
    run = await ledger.submit("quiet", max_attempts=1)
    async with working(ledger, quiet, reap=True):
        await ended(ledger, run)
    said = capsys.readouterr().err

    for event in (names.ATTEMPT_CRASHED, names.DUTY_CRASHED):
        assert event in said
    assert said.count("RuntimeError: refused: password=[redacted]") >= 2
    assert "in crash" in said
    assert CANARY not in said
    assert await _found_in_tables(ledger.pool, CANARY) == []


def test_a_traceback_in_the_programs_log_has_no_secrets(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for as_json in (True, False):
        configure_log(as_json=as_json, verbose=False)
        try:
            crash()
        except RuntimeError:
            log.logger().exception("defect")
        said = capsys.readouterr().err
        assert ("RuntimeError" in said, CANARY in said) == (True, False)
