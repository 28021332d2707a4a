"""The schema: checked in, matched by the tables, installed as compiled, and kept through upgrades."""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from ledger import Ledger, schema, tables
from ledger.database import driver_url
from ledger.errors import NewerSchema, NotMigrated
from ledger.events import CATALOGUE, Event
from ledger.lifecycle import EDGES, FIRST, MOVES, State
from ledger.proof.encoding import FIELDS
from projections.compile import compiled
from projections.run_state import COLUMNS, KEY
from tests.conftest import PROJECT
from tests.schema_dump import SCHEMA_FILE, dump
from tests.server import Server


def test_the_checked_in_schema_is_what_the_migrations_make(server: Server, database: str) -> None:
    if not server.name.startswith("embedded"):
        pytest.skip("the checked-in schema is that of the embedded server's version")

    assert SCHEMA_FILE.read_text() == dump(database)


async def test_the_sqlalchemy_tables_are_the_tables_of_the_database(
    connection: asyncpg.Connection[asyncpg.Record],
) -> None:
    rows = await connection.fetch(
        "SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod) AS type, a.attnotnull FROM pg_attribute AS a "
        "JOIN pg_class AS c ON c.oid = a.attrelid WHERE c.relnamespace = 'ledger'::regnamespace AND a.attnum > 0 "
        "AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relname <> 'alembic_version' ORDER BY 1, a.attnum"
    )
    actual = [(row["relname"], row["attname"], row["type"], row["attnotnull"]) for row in rows]

    declared = [
        (
            table.name,
            column.name,
            _SQL_TYPES.get(str(column.type), str(column.type).lower()),
            not column.nullable,
        )
        for table in sorted(tables.metadata.tables.values(), key=lambda table: table.name)
        for column in table.columns
    ]
    assert declared == actual


_SQL_TYPES = {
    "DATETIME": "timestamp with time zone",
    "BLOB": "bytea",
    "CHAR(32)": "uuid",
    "ARRAY": "text[]",
    "NUMERIC(18, 6)": "numeric(18,6)",
    "VARCHAR(7)": "character varying(7)",
    "VARCHAR(80)": "character varying(80)",
    "VARCHAR(200)": "character varying(200)",
}


async def test_the_installed_functions_are_those_compiled_from_the_declarations(
    connection: asyncpg.Connection[asyncpg.Record],
) -> None:
    for name, text in compiled().items():
        assert schema.sql(name) == text, f"ledger/sql/{name}.sql is out of date: run `make sql`"
        installed = await connection.fetchval(
            "SELECT prosrc FROM pg_proc WHERE pronamespace = 'ledger'::regnamespace AND proname = $1", name
        )
        assert installed.strip() in text


def test_every_fact_of_every_event_is_a_hashed_column() -> None:
    columns = {column.name for column in tables.event.columns}

    for model in CATALOGUE.values():
        facts = set(model.model_fields) - model.content_fields() - {"erased"}
        assert facts <= columns
    assert columns - {name for name, _ in FIELDS} == {"position", "txid", "hash"}


def test_the_catalogue_has_a_model_for_every_type_of_the_state_machine() -> None:
    assert {type_ for type_, model in CATALOGUE.items() if type_.split(".")[0] != "acme"} >= {*MOVES, FIRST}
    assert all(issubclass(model, Event) for model in CATALOGUE.values())


def test_every_move_but_a_compensating_one_is_an_edge_of_the_state_machine() -> None:
    for type_, moves in MOVES.items():
        for source, target in moves:
            assert target in {None, State.PENDING} or target in EDGES[source], type_
            if target is State.PENDING:
                assert type_ in {"lease.expired", "lease.released", "run.retried"}


def test_the_projection_folds_every_column_of_its_table() -> None:
    assert [*KEY, *COLUMNS] == [column.name for column in tables.run_state.columns]


async def test_an_upgrade_of_a_filled_database_keeps_every_event(database: str) -> None:
    async with Ledger.open(database, PROJECT) as ledger:
        run = await ledger.submit("parse", {"path": "a.py"})
        before = await ledger.history(run.run_id)

    await schema.upgrade(database)

    async with Ledger.open(database, PROJECT) as ledger:
        assert await ledger.history(run.run_id) == before


async def test_concurrent_upgrades_of_an_empty_database_wait_for_each_other(empty_database: str) -> None:
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

    await connection.execute(f"UPDATE ledger.alembic_version SET version_num = '{schema.head()}'")
    await connection.close()


def test_the_revisions_named_by_files_are_those_of_the_migrations() -> None:
    config = Config()
    config.set_main_option("script_location", str(SCHEMA_FILE.parent))

    walked = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]

    assert list(schema.revisions()) == walked[::-1]


def test_every_sql_file_is_installed() -> None:
    files = {path.stem for path in (Path(schema.__file__).parent / "sql").glob("*.sql")}

    assert files == set(schema.OBJECTS)
