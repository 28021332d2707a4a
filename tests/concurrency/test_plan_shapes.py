"""Every hot statement has one plan: on empty, small and large tables, analysed or not."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final
from urllib.parse import urlsplit

import asyncpg
import pytest

from runfold.ledger import Ledger, State, Submit, Transition
from runfold.ledger.errors import DecisionRefused
from runfold.ledger.events import ApprovalRequested, NoteAdded
from runfold.ledger.operations.reap import pulse
from runfold.ledger.postgres.urls import driver_url
from tests.concurrency.test_plans import ANALYZE, measured
from tests.ledger.operations.test_low_water import MOVE
from tests.support.databases import PROJECT

pytestmark = pytest.mark.new_database

TABLES: Final = frozenset({"run_state", "event", "payload", "command"})
"""The tables that grow with the runs."""
EXPLAIN: Final = {
    "session_preload_libraries": "auto_explain",
    "auto_explain.log_min_duration": "0",
    "auto_explain.log_nested_statements": "on",
    "auto_explain.log_format": "json",
    "client_min_messages": "log",
}
Shape = frozenset[tuple[str, str, str]]


class Plans:
    """The plans of the statements within functions: for each text, every shape that it had."""

    def __init__(self) -> None:
        self.shapes: defaultdict[str, set[Shape]] = defaultdict(set)

    def note(self, message: str) -> None:
        """Note the plan of a message of auto_explain."""
        head, _, plan = message.partition("plan:\n")
        if head.startswith("duration"):
            explained = json.loads(plan)
            text = " ".join(explained["Query Text"].split())
            shape = frozenset(scans(explained["Plan"]))
            if shape:
                self.shapes[text].add(shape)


def scans(plan: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield how each growing table is read: node, table and index; partitions by their table."""
    relation = re.sub(r"_\d{4}_\d{2}$", "", plan.get("Relation Name", ""))
    if relation in TABLES and plan["Node Type"] != "ModifyTable":
        index = re.sub(r"_\d{4}_\d{2}", "", plan.get("Index Name", ""))
        yield plan["Node Type"], relation, index
    for part in plan.get("Plans", ()):
        yield from scans(part)


@pytest.fixture
async def explaining(database: str) -> None:
    """Have each new session of the test's database tell the plans of nested statements."""
    name = urlsplit(database).path.lstrip("/")
    connection = await asyncpg.connect(driver_url(database))
    for setting, value in EXPLAIN.items():
        await connection.execute(f"ALTER DATABASE {name} SET {setting} = '{value}'")
    await connection.close()


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> Plans:
    """The plans that the server tells, whichever connection hears them."""
    plans = Plans()

    def hear(_: object, fields: dict[str, str], __: object) -> None:
        plans.note(fields["M"])

    monkeypatch.setattr(asyncpg.Connection, "_process_log_message", hear)
    monkeypatch.setenv("RUNFOLD_POOL_SIZE", "1")
    return plans


async def every_operation(ledger: Ledger, batch: int) -> None:
    """Call every operation, those with keys too, and find endings and keys again."""
    await measured(ledger, batch)
    run = await ledger.submit("keyed", key=f"run {batch}")
    await ledger.get(run.run_id)
    [lease] = await ledger.claim("w:1", kinds=["keyed", "other"])
    for _ in range(2):
        await ledger.append(lease, NoteAdded(text="x"), key=f"note {run.run_id}")
    end = Transition(lease, State.COMPLETED, key=f"end {run.run_id}")
    for _ in range(2):
        await ledger.transition_many([end])
    await ledger.submit("keyed", delay=0.001)
    parked = (await ledger.submit("parked")).run_id
    [waiting] = await ledger.claim("w:1", kinds=["parked"])
    await ledger.transition(waiting, State.WAITING_TOOL, park=True, name="signal:go")
    await ledger.signal(parked, "go", {"x": 1})
    [again] = await ledger.claim("w:1", kinds=["parked"])
    await ledger.release(again)
    await ledger.release(again)
    limited = f"limited {batch}"
    await ledger.limit_kind(limited, 3, ahead=True)
    await ledger.submit_many([Submit(kind=limited, deadline=3_600)] * 2)
    failing, asking = await ledger.claim("w:1", kinds=[limited], limit=2)
    await ledger.retry(failing, error_code="E-1")
    await ledger.ask_approval(asking, "deploy")
    await ledger.claim("w:2", kinds=[limited], limit=2)
    await pulse(ledger.project, None)
    await ledger.submit("asks", parent=run.run_id)
    [asks] = await ledger.claim("w:1", kinds=["asks"])
    run = await ledger.ask_approval(asks, "Pay?", other_person=True, approvals=2)
    asked = ApprovalRequested(run_id=asks.run_id, version=run.version)
    for name in ("ann", "ann", "bob"):
        with suppress(DecisionRefused):
            await ledger.approve(asked, actor=name)


async def late_transaction(database: str) -> None:
    """Move the marks while a transaction is open, and after it, with the settings of a sweep."""
    async with (
        asyncpg.create_pool(driver_url(database), min_size=2, max_size=2) as pool,
        pool.acquire() as late,
        pool.acquire() as mover,
    ):
        settings = "SELECT unnest(proconfig) FROM pg_proc WHERE oid = 'ledger.reap'::regproc"
        for [setting] in await mover.fetch(settings):
            await mover.execute("SELECT set_config($1, $2, false)", *setting.split("=", 1))
        transaction = late.transaction()
        await transaction.start()
        await late.execute("SELECT pg_current_xact_id()")
        for _ in range(2):
            await mover.execute(MOVE, PROJECT, "parse")
        await transaction.rollback()
        await mover.execute(MOVE, PROJECT, "parse")


@pytest.mark.slow
async def test_a_hot_statement_has_one_plan_however_large_its_tables_are(
    database: str, connection: asyncpg.Connection[Any], explaining: None, plans: Plans
) -> None:
    async with Ledger.open(database, PROJECT) as first:
        await first.pool.execute(ANALYZE)
        await every_operation(first, 5)
        await late_transaction(database)
        async with Ledger.open(database, PROJECT) as second:
            await connection.execute(ANALYZE)
            await every_operation(second, 6)
        await first.submit_many([Submit(kind="parse", input=1, priority=1)] * 10_000)
        await first.submit_many([Submit(kind="parse", input=1, priority=1)] * 10_000)
        await every_operation(first, 7)
        async with Ledger.open(database, PROJECT) as not_analysed:
            await every_operation(not_analysed, 8)
        await connection.execute(ANALYZE)
        async with Ledger.open(database, PROJECT) as analysed:
            await every_operation(analysed, 9)
            await late_transaction(database)

    assert len(plans.shapes) >= 20
    assert {text: shapes for text, shapes in plans.shapes.items() if len(shapes) > 1} == {}
    scanned = [
        text
        for text, [shape] in plans.shapes.items()
        if any(node == "Seq Scan" for node, _, _ in shape)
    ]
    assert scanned == []


async def test_a_plan_that_is_not_pinned_is_seen(
    database: str, connection: asyncpg.Connection[Any], explaining: None, plans: Plans
) -> None:
    await connection.execute(
        "ALTER FUNCTION ledger.heartbeat SET enable_seqscan = on SET enable_indexscan = off"
        " SET enable_bitmapscan = off"
    )
    async with Ledger.open(database, PROJECT) as ledger:
        await ledger.submit("parse")
        await ledger.heartbeat(await ledger.claim("w:1"))

    nodes = {node for shapes in plans.shapes.values() for shape in shapes for node, _, _ in shape}
    assert "Seq Scan" in nodes
