"""Declaring a projection: what is accepted, what is refused and why, and the table that follows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, cast

import asyncpg
import pytest

from runfold.ledger.errors import InvalidValue
from runfold.ledger.events import Event
from runfold.ledger.postgres.urls import driver_url
from runfold.projections.algebra.operation import assign, count, first, greatest, last, once, total
from runfold.projections.algebra.source import as_source
from runfold.projections.declared.installing import declared, install_on
from runfold.projections.declared.projection import Projection
from runfold.projections.declared.sources import (
    day,
    each,
    earlier,
    either,
    field,
    of_lease,
    of_run,
    since,
)
from runfold.projections.errors import DeclaredTwice, OtherVersion, Redeclared, TableChanged
from tests.support.logins import with_login
from tests.support.waiting import awaited

Connection: TypeAlias = "asyncpg.Connection[Any]"

KEY = {"project_id": "project_id", "kind": of_run("kind")}


def spend(**changes: Any) -> Projection:
    """Declare a projection, with something about it changed."""
    given: dict[str, Any] = {
        "name": "spend",
        "version": 1,
        "key": KEY,
        "columns": {
            "cost_usd": total("cost_usd"),
            "reads": count({"acme.page_read"}),
            "newest": last("actor"),
        },
    }
    return Projection(**{**given, **changes})


async def nothing(connection: Connection, events: Sequence[Event]) -> None:
    """Apply events by ignoring them."""


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"name": "Spend"}, "lower-case"),
        ({"name": "spend; DROP TABLE ledger.event"}, "lower-case"),
        ({"name": "spend_v2"}, "like a version"),
        ({"version": 0}, "1 to 32767"),
        ({"key": {}}, "needs a key"),
        ({"columns": {}}, "needs a key"),
        ({"key": {"kind": "colour"}}, "not a column of an event"),
        ({"key": {"tags": "tags"}}, "cannot be part of a key"),
        ({"columns": {"project_id": count()}}, "part of the key already"),
        ({"columns": {"x_position": count()}}, "_position"),
        ({"columns": {"x": total("actor")}}, "is of type text, which cannot be added up"),
        (
            {"columns": {"x": total(field("size", "boolean"))}},
            "is of type boolean, which cannot be added up",
        ),
        ({"columns": {"x": greatest("hash")}}, "is of type bytea, which cannot be compared"),
        ({"columns": {"x": count({"run.finished"})}}, "'run.' are: run.cancelled, "),
        ({"columns": {"x": count({"Acme"})}}, "is not an event type, such as 'run.failed'"),
        ({"columns": {"x": count(())}}, "name one or more"),
        ({"columns": {"x": last("attempt", default=0)}}, "leave it out"),
        ({"columns": {"x": count().where(present="colour")}}, "not a column of an event"),
        ({"columns": {"x": count().where(key={"day": day()})}}, "not part of the key"),
        ({"columns": {"x": count().where(key={"kind": "version"})}}, "another type"),
        ({"apply": nothing}, "not both"),
        ({"on": {"run.failed"}}, "says itself which events count"),
        (
            {"key": {}, "columns": {}, "apply": nothing, "on": {"run.finished"}},
            "'run.' are: run.cancelled, ",
        ),
    ],
)
def test_what_cannot_be_folded_is_an_error_where_it_is_declared(
    changes: dict[str, Any], why: str
) -> None:
    with pytest.raises(InvalidValue, match=why):
        spend(**changes)


def test_a_field_of_a_payload_has_a_path_and_a_type() -> None:
    for path, type_, why in (
        ("", "int", "joined by dots"),
        ("a..b", "int", "joined by dots"),
        ("a", "double precision", "must be one of"),
        ("a\x00", "int", "NUL"),
    ):
        with pytest.raises(InvalidValue, match=why):
            field(path, type_)
    with pytest.raises(InvalidValue, match="one type"):
        either("worker_id", "version")
    with pytest.raises(InvalidValue, match="not a time"):
        day("actor")


WRONG_SOURCES: tuple[tuple[Callable[[], object], str], ...] = (
    (lambda: of_run(cast("str", field("name"))), "names a column"),
    (lambda: earlier(cast("str", of_run("kind"))), "names a column"),
    (lambda: of_lease(cast("str", of_run("kind"))), "names a column"),
    (lambda: day(cast("str", of_run("recorded_at"))), "names a column"),
    (lambda: count().where(present=cast("str", field("name"))), "names a column"),
    (lambda: since({"run.finished"}), "'run.' are: run.cancelled, "),
    (lambda: earlier("state", ()), "name one or more"),
    (lambda: field("a", schema_versions=()), "name one or more"),
    (lambda: either(each("tags"), "kind"), "belongs around"),
    (
        lambda: either(field("a", schema_versions=(1,)), field("b", schema_versions=(2,))),
        "no schema version",
    ),
)


@pytest.mark.parametrize(("source", "why"), WRONG_SOURCES)
def test_a_source_that_is_no_value_of_an_event_is_an_error_where_it_is_declared(
    source: Callable[[], Any], why: str
) -> None:
    with pytest.raises(InvalidValue, match=why):
        spend(columns={"x": source()})


def test_sources_hold_for_the_schema_versions_that_all_of_them_know_and_a_type_is_no_letters() -> (
    None
):
    both = either(field("a", schema_versions=(1, 2)), field("b", schema_versions=(2, 3)), "actor")

    assert both.schema_versions == (2,)
    assert since("tool.requested") == since({"tool.requested"})
    assert earlier("state", "tool.requested") == earlier("state", {"tool.requested"})


def test_the_type_of_a_column_follows_from_its_source_and_its_operation() -> None:
    projection = spend(
        columns={
            "n": count(),
            "steps": total("step_count"),
            "cost": total("cost_usd"),
            "waited": total(since({"tool.requested"})),
            "size": greatest(field("size", "int")),
            "who": last("actor"),
            "worker": assign("worker_id", {"lease.acquired"}),
            "start": first("recorded_at"),
            "day": once(day(), {"run.submitted"}),
            "was": last(earlier("state")),
        }
    )

    assert projection.column_types() == {
        "project_id": "text",
        "kind": "text",
        "n": "bigint",
        "steps": "bigint",
        "cost": "numeric",
        "waited": "interval",
        "size": "int",
        "who": "text",
        "worker": "text",
        "start": "timestamptz",
        "day": "date",
        "was": "text",
        "who_position": "bigint",
        "worker_position": "bigint",
        "start_position": "bigint",
        "was_position": "bigint",
    }
    assert as_source("run_id").type == "uuid"


def test_the_digest_of_a_declaration_follows_its_content_only() -> None:
    assert spend().digest == spend().digest
    others = [
        spend(columns={"cost_usd": total("cost_usd", {"step.completed"})}),
        spend(columns={"cost_usd": greatest("cost_usd")}),
        spend(key={"project_id": "project_id"}),
        spend(version=2),
    ]
    assert len({one.digest for one in (spend(), *others)}) == len(others) + 1


async def test_a_declared_projection_gets_a_table_and_a_view_of_its_own(
    connection: Connection,
) -> None:
    assert await install_on(connection, spend())
    assert not await install_on(connection, spend())

    assert (
        await connection.fetch(
            "SELECT project_id, kind, cost_usd, reads, newest FROM projection.spend"
        )
        == []
    )
    table = await connection.fetchrow(
        "SELECT relowner = (SELECT nspowner FROM pg_namespace WHERE nspname = 'ledger') AS ledgers "
        "FROM pg_class WHERE relname = 'spend_v1'"
    )
    assert table is not None
    assert table["ledgers"]


async def test_a_function_has_a_checkpoint_and_no_table(connection: Connection) -> None:
    await install_on(connection, Projection("outbox", apply=nothing))

    assert (
        await connection.fetchval("SELECT snapshot FROM ledger.projection WHERE name = 'outbox'")
        == "1:1:@0"
    )
    assert await connection.fetchval("SELECT to_regclass('projection.outbox')") is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("ADD COLUMN note text", "column note does not belong there"),
        ("DROP COLUMN reads CASCADE", "column reads is missing"),
        ("ALTER COLUMN reads DROP NOT NULL", "column reads has another NOT NULL"),
        ("ALTER COLUMN newest_position TYPE int", "column newest_position is integer, not bigint"),
        ("DROP CONSTRAINT spend_v1_pkey", "column kind has another place in the primary key"),
    ],
)
async def test_a_table_that_was_changed_by_hand_is_refused(
    connection: Connection, change: str, said: str
) -> None:
    await install_on(connection, spend())
    await connection.execute(f"ALTER TABLE projection.spend_v1 {change}")

    with pytest.raises(TableChanged, match="changed by hand") as refused:
        await install_on(connection, spend())

    assert said in refused.value.differences


async def test_a_table_that_is_gone_is_refused(connection: Connection) -> None:
    await install_on(connection, spend())
    await connection.execute("DROP TABLE projection.spend_v1 CASCADE")

    with pytest.raises(TableChanged, match="it is gone"):
        await install_on(connection, spend())


async def test_of_two_who_install_at_once_one_makes_it_and_the_other_finds_it(
    connection: Connection, database: str
) -> None:
    other = await asyncpg.connect(driver_url(database))
    async with connection.transaction():
        assert await install_on(connection, spend())
        later = asyncio.create_task(install_on(other, spend()))
        await awaited(connection)
    assert await later is False
    await other.close()


async def test_a_derived_column_that_computes_nothing_is_named(connection: Connection) -> None:
    for wrong in ("reads /", "reads + newest", "abs()"):
        with pytest.raises(asyncpg.SyntaxOrAccessError, match=r"'spend' with .* AS each: "):
            await install_on(connection, spend(derived={"each": wrong}))


async def test_two_versions_never_run_at_once(connection: Connection) -> None:
    await install_on(connection, spend(version=2))

    with pytest.raises(OtherVersion, match="rebuild"):
        await install_on(connection, spend(version=3))
    with pytest.raises(OtherVersion, match="deploy the newer code"):
        await install_on(connection, spend(version=1))


async def test_a_declaration_that_changed_without_its_version_is_refused(
    connection: Connection,
) -> None:
    await install_on(connection, spend())

    with pytest.raises(Redeclared, match="raise its version"):
        await install_on(
            connection, spend(columns={**spend().columns, "reads": count({"acme.other"})})
        )


ONE, SAME_ONE_AGAIN = spend(), None


def test_projections_are_found_in_the_modules_that_declare_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert declared(["tests.projections.test_declaration"])["spend"] is ONE
    with pytest.raises(InvalidValue, match="there is no module"):
        declared(["tests.no_such_module"])
    with pytest.raises(InvalidValue, match="declares no projection"):
        declared(["ledger.run"])
    monkeypatch.setitem(globals(), "SAME_ONE_AGAIN", spend(version=2))
    with pytest.raises(DeclaredTwice, match="versions 1 and 2"):
        declared(["tests.projections.test_declaration"])


async def test_a_login_with_the_projectors_role_may_install_and_a_reader_only_reads(
    database: str,
) -> None:
    async with (
        with_login(database, "runfold_projector", rights=("read",), project="*") as projector,
        with_login(database, "runfold_reader", rights=("read",)) as reader,
    ):
        keeping = await asyncpg.connect(driver_url(projector))
        await install_on(keeping, spend())
        await keeping.close()
        reading = await asyncpg.connect(driver_url(reader))

        assert await reading.fetch("SELECT * FROM projection.spend") == []
        for statement in (
            "DELETE FROM projection.spend",
            "UPDATE ledger.projection SET position = 0",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await reading.execute(statement)
        await reading.close()
