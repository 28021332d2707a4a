"""The schema: checked in, matched by the tables, installed as compiled, kept by upgrades."""

from __future__ import annotations

import asyncio
import re
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy.dialects.postgresql import ARRAY

from runfold.console.cli.kit import exits
from runfold.console.cli.kit.failure import report
from runfold.ledger import Ledger, Transition
from runfold.ledger.errors import ConfigurationError, LeaseLost, NewerSchema, NotMigrated
from runfold.ledger.events import CATALOGUE, Event, StepCompleted
from runfold.ledger.lifecycle import EDGES, FIRST, MOVES, State
from runfold.ledger.postgres import revisions, schema, tables
from runfold.ledger.postgres.embedded.postgres import temporary_postgres
from runfold.ledger.postgres.urls import driver_url
from runfold.ledger.proof.encoding import FIELDS
from runfold.projections.state.compile import compiled, outputs
from runfold.projections.state.run_state import COLUMNS, KEY
from tests.support.databases import PROJECT
from tests.support.runs import abandoned, claimed
from tests.support.schema_dump import SCHEMA_FILE, dump
from tests.support.server import Server
from tests.support.server_folder import server_folder
from tests.support.signatures import broken_calls, callable_functions, recorded


@pytest.mark.new_database
def test_the_checked_in_schema_is_what_the_migrations_make(server: Server, database: str) -> None:
    if not server.name.startswith("embedded"):
        pytest.skip("the checked-in schema is that of the embedded server's version")

    assert SCHEMA_FILE.read_text() == dump(database)


@pytest.mark.new_database
async def test_code_of_each_revision_that_the_schema_works_with_can_call_its_functions(
    database: str, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    now = await callable_functions(connection)
    oldest = await connection.fetchval(revisions.OLDEST_CODE)
    before = {known: functions for known, functions in recorded().items() if known >= oldest}

    assert recorded()[revisions.head()] == now, "functions.json: run `make schema`"
    assert set(before) == {known for known in revisions.known() if known >= oldest}
    assert [list(broken_calls(functions, now)) for functions in before.values()] == [[]] * len(
        before
    )


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ("p_newer boolean DEFAULT NULL", []),
        ("p_newer boolean", ["heartbeat needs more parameters"]),
    ],
)
async def test_a_parameter_without_a_default_breaks_the_calls_of_older_code(
    unverified_database: str, change: str, broken: list[str]
) -> None:
    connection = await asyncpg.connect(driver_url(unverified_database))
    before = await callable_functions(connection)
    text = schema.sql("operations/heartbeat").replace(
        "p_workers text[] DEFAULT NULL",
        f"p_workers text[]{' DEFAULT NULL' if 'DEFAULT' in change else ''}, {change}",
    )
    await connection.execute(
        "DROP FUNCTION ledger.heartbeat(text, uuid[], int[], interval[], text[])"
    )
    await connection.execute(text + schema.sql("guards/grants"))

    assert list(broken_calls(before, await callable_functions(connection))) == broken
    await connection.close()


async def test_the_sqlalchemy_tables_are_the_tables_of_the_database(
    connection: asyncpg.Connection[asyncpg.Record],
) -> None:
    rows = await connection.fetch(
        "SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod) AS type, a.attnotnull "
        "FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid "
        "WHERE c.relnamespace = 'ledger'::regnamespace AND a.attnum > 0 "
        "AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relname <> 'alembic_version' "
        "ORDER BY 1, a.attnum"
    )
    actual = [(row["relname"], row["attname"], row["type"], row["attnotnull"]) for row in rows]

    declared = [
        (
            table.name,
            column.name,
            _sql_type(column.type),
            not column.nullable,
        )
        for table in sorted(tables.metadata.tables.values(), key=lambda table: table.name)
        for column in table.columns
    ]
    assert declared == actual


def _sql_type(declared: Any) -> str:
    if isinstance(declared, ARRAY):
        return f"{_sql_type(declared.item_type)}[]"
    return _SQL_TYPES.get(str(declared), str(declared).lower())


_SQL_TYPES = {
    "DATETIME": "timestamp with time zone",
    "BLOB": "bytea",
    "CHAR(32)": "uuid",
    "NUMERIC(18, 6)": "numeric(18,6)",
    "VARCHAR(40)": "character varying(40)",
    "VARCHAR(7)": "character varying(7)",
    "VARCHAR(64)": "character varying(64)",
    "VARCHAR(80)": "character varying(80)",
    "VARCHAR(100)": "character varying(100)",
    "VARCHAR(200)": "character varying(200)",
    "VARCHAR(1000)": "character varying(1000)",
    "VARCHAR(60)": "character varying(60)",
    "VARCHAR(255)": "character varying(255)",
    "VARCHAR(500)": "character varying(500)",
    "VARCHAR(2000)": "character varying(2000)",
}


async def test_the_installed_functions_are_those_compiled_from_the_declarations(
    connection: asyncpg.Connection[asyncpg.Record],
) -> None:
    for path, text in outputs().items():
        assert path.read_text() == text, f"{path} is out of date: run `make sql`"
    for name, text in compiled().items():
        installed = await connection.fetchval(
            "SELECT prosrc FROM pg_proc WHERE pronamespace = 'ledger'::regnamespace "
            "AND proname = $1",
            name,
        )
        assert installed.strip() in text


def test_every_fact_of_every_event_is_a_hashed_column() -> None:
    columns = {column.name for column in tables.event.columns}

    for model in CATALOGUE.values():
        facts = set(model.model_fields) - model.content_fields() - {"erased"}
        assert facts <= columns
    assert columns - {name for name, _ in FIELDS} == {"position", "txid", "hash"}


def test_the_catalogue_has_a_model_for_every_type_of_the_state_machine() -> None:
    assert {type_ for type_, model in CATALOGUE.items() if type_.split(".")[0] != "acme"} >= {
        *MOVES,
        FIRST,
    }
    assert all(issubclass(model, Event) for model in CATALOGUE.values())


def test_every_move_but_a_compensating_one_is_an_edge_of_the_state_machine() -> None:
    for type_, moves in MOVES.items():
        for source, target in moves:
            assert target in {None, State.PENDING} or target in EDGES[source], type_
            if target is State.PENDING:
                assert type_ in {"lease.expired", "lease.released", "run.retried"}


def test_the_projection_folds_every_column_of_its_table() -> None:
    assert [*KEY, *COLUMNS] == [column.name for column in tables.run_state.columns]


async def told(ledger: Ledger) -> None:
    """Make runs in every state, with costs, results, keys, a late writer and waits that ended."""
    for end in (State.COMPLETED, State.FAILED, State.CANCELLED):
        lease = await claimed(
            ledger, input={"path": "a.py"}, key=f"key-{end}", tags=["nightly"], priority=3
        )
        await ledger.heartbeat([lease])
        await ledger.append(
            lease,
            StepCompleted(name="parse", output=[1, 2], cost_usd=Decimal("0.25"), step_count=1),
        )
        await ledger.transition(lease, State.WAITING_TOOL, name="wc", content={"input": "x"})
        await ledger.transition(lease, State.RUNNING, output=3, cost_usd_delta=0.5)
        await ledger.transition(
            lease, end, output={"lines": 3}, error_code="E" if end is State.FAILED else None
        )
    parked, answered, given_back, _ = [await claimed(ledger) for _ in range(4)]
    late = await abandoned(ledger, "w:late")
    await ledger.transition(
        parked,
        State.WAITING_APPROVAL,
        park=True,
        wait=3_600,
        content={"prompt": "Go?", "show": {"usd": 5}},
    )
    await ledger.transition(answered, State.WAITING_APPROVAL, park=True, content={"prompt": "Go?"})
    await ledger.approve(await ledger.get(answered.run_id), actor="ann", reason="yes")
    await ledger.reap()
    with pytest.raises(LeaseLost):
        await ledger.transition(late, State.COMPLETED)
    await ledger.release(given_back)
    await ledger.submit("parse", delay=3_600, deadline=7_200)


COPIED = ("project", "kind", "event", "payload", "run_state", "run_tag", "command")
BOUNDS = """
SELECT c.relname AS name, pg_get_expr(c.relpartbound, c.oid) AS bound
FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
WHERE i.inhparent = 'ledger.event'::regclass AND c.relkind = 'r'
"""
STORED = """
SELECT column_name FROM information_schema.columns WHERE (table_schema, table_name) = ('ledger',
  $1) AND is_generated = 'NEVER'
"""


async def migrated_to(url: str, revision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the tables of the schema at a revision; the functions belong to the code."""
    with monkeypatch.context() as only_here:
        only_here.setattr(schema, "install_script", lambda _: "SELECT")
        only_here.setattr(revisions, "head", lambda: revision)
        await schema.upgrade(url)


async def copied(source: str, target: str) -> None:
    """Copy a ledger's rows into an older schema: of each table the columns that both have."""
    there, here = [await asyncpg.connect(driver_url(url)) for url in (source, target)]
    for row in await there.fetch(BOUNDS):
        await here.execute(
            f"CREATE TABLE ledger.{row['name']} PARTITION OF ledger.event {row['bound']}"
        )
    for table in COPIED:
        both = [
            {column["column_name"] for column in await one.fetch(STORED, table)}
            for one in (there, here)
        ]
        columns = sorted(both[0] & both[1])
        rows = await there.fetch(f"SELECT {', '.join(columns)} FROM ledger.{table}")
        await here.copy_records_to_table(
            table, schema_name="ledger", columns=columns, records=[tuple(row) for row in rows]
        )
    for one in (there, here):
        await one.close()


@pytest.mark.parametrize("revision", revisions.known())
async def test_an_upgrade_of_a_filled_database_keeps_every_event(
    database: str, empty_database: str, revision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Ledger.open(database, PROJECT) as ledger:
        await told(ledger)
        runs = await ledger.runs()
        before = {run.run_id: await ledger.history(run.run_id) for run in runs}
    await migrated_to(empty_database, revision, monkeypatch)
    await copied(database, empty_database)

    await schema.upgrade(empty_database)

    async with Ledger.open(empty_database, PROJECT) as ledger:
        assert await ledger.runs() == runs
        assert {run.run_id: await ledger.history(run.run_id) for run in runs} == before
        assert (await ledger.verify()).findings == ()
        leases = await ledger.claim("w:new", limit=10)
        assert len(leases) == 3
        await ledger.transition_many([Transition(lease, State.COMPLETED) for lease in leases])
        assert (await ledger.verify()).findings == ()


@pytest.mark.slow
async def test_an_owner_that_may_not_make_roles_is_told_what_to_ask_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with temporary_postgres({}, server_folder()) as postgres:
        superuser = await asyncpg.connect(driver_url(postgres.url()))
        await superuser.execute("CREATE ROLE owner LOGIN")
        await superuser.execute("CREATE DATABASE owned OWNER owner")
        url = postgres.url("owned").replace("postgres@", "owner@", 1)

        with pytest.raises(ConfigurationError) as refused:
            await schema.upgrade(url)
        assert report(refused.value, as_json=False, verbose=False) == exits.ERROR
        error = capsys.readouterr().err
        (asked,) = re.findall(r"CREATE ROLE .*;", error)
        await superuser.execute(asked)
        await superuser.close()

        await schema.upgrade(url)
        async with Ledger.open(url, PROJECT, create_project=True) as ledger:
            await ledger.submit("parse")
            assert (await ledger.verify()).ok


async def test_concurrent_upgrades_of_an_empty_database_wait_for_each_other(
    empty_database: str,
) -> None:
    await asyncio.gather(*(schema.upgrade(empty_database) for _ in range(3)))

    async with Ledger.open(empty_database, "fresh", create_project=True) as ledger:
        assert (await ledger.submit("parse")).version == 1


async def test_a_database_of_ones_own_is_never_migrated_silently(empty_database: str) -> None:
    with pytest.raises(NotMigrated, match="runfold db upgrade"):
        async with Ledger.open(empty_database):
            pass


async def test_a_schema_of_newer_code_is_refused(database: str) -> None:
    connection = await asyncpg.connect(driver_url(database))
    await connection.execute("UPDATE ledger.alembic_version SET version_num = '9999'")

    with pytest.raises(NewerSchema, match="9999"):
        async with Ledger.open(database, PROJECT):
            pass

    await connection.execute(
        f"UPDATE ledger.alembic_version SET version_num = '{revisions.head()}'"
    )
    await connection.close()


def test_the_revisions_named_by_files_are_those_of_the_migrations() -> None:
    config = Config()
    config.set_main_option("script_location", str(SCHEMA_FILE.parent))

    walked = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]

    assert list(revisions.known()) == walked[::-1]


def test_every_schema_works_with_the_code_of_the_revision_before_it() -> None:
    config = Config()
    config.set_main_option("script_location", str(SCHEMA_FILE.parent))

    for script in ScriptDirectory.from_config(config).walk_revisions():
        assert script.module.oldest_code <= (script.down_revision or script.revision)


def test_every_sql_file_is_installed() -> None:
    folder = Path(str(files("runfold.ledger") / "sql"))
    found = {str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.sql")}

    assert found == {*schema.OBJECTS, *(f"indexes/{name}" for name in schema.INDEXES)}


def test_no_statement_that_waits_for_runs_reads_events_as_well() -> None:
    """PostgreSQL 18 crashes on it: see ledger/sql/operations/nothing_begun.sql."""
    held_before = {"refuse"}  # by lock_runs: nobody changes a run before the statement locks it
    folder = Path(str(files("runfold.ledger") / "sql"))
    risky = {
        path.stem
        for path in folder.rglob("*.sql")
        for statement in re.sub("--.*", "", path.read_text()).split(";")
        if re.search(r"FOR (NO KEY )?(UPDATE|SHARE)", statement)
        and re.search(r"(FROM|JOIN) ledger\.event\b", statement)
    }

    assert risky == held_before
