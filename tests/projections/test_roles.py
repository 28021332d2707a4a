"""Who may do what to a projection: the ledger's owner owns every table, to nobody's gain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from runfold.ledger import Ledger
from runfold.ledger.errors import AccessDenied, DatabaseUnavailable, InvalidValue
from runfold.ledger.events import Event
from runfold.ledger.postgres import schema
from runfold.ledger.postgres.urls import driver_url
from runfold.ledger.reading import feed
from runfold.ledger.reading.feed import Checkpoint
from runfold.projections import (
    CatchUp,
    Projection,
    ProjectionNotFound,
    TableChanged,
    count,
    install,
    last,
    of_run,
    refold,
    statuses,
)
from runfold.projections.declared.derived import check_derived
from runfold.projections.declared.dropping import drop, drop_replaced
from runfold.projections.declared.exchange import replace_table
from runfold.projections.declared.installing import check_table, declared
from runfold.projections.declared.refold import NOBODY, plan
from runfold.projections.declared.rows import rows
from runfold.projections.errors import ProjectionUnseen
from runfold.projections.rebuild import Rebuild
from tests.support.databases import PROJECT
from tests.support.logins import grant, with_login
from tests.support.projections import read, sizes, sizes_of
from tests.support.waiting import awaited

ATTACKS = (
    "CREATE TRIGGER planted BEFORE INSERT ON projection.sizes_v1 EXECUTE FUNCTION public.gain()",
    "CREATE RULE planted AS ON INSERT TO projection.sizes_v1 DO ALSO SELECT 1",
    "ALTER TABLE projection.sizes_v1 ADD COLUMN planted text DEFAULT current_user",
    "ALTER TABLE projection.sizes_v1 ENABLE ROW LEVEL SECURITY",
    "CREATE INDEX planted ON projection.sizes_v1 (reads)",
    "CREATE TABLE projection.planted (x int)",
    "CREATE OR REPLACE VIEW projection.sizes AS SELECT 1 AS kind",
    "DROP TABLE projection.sizes_v1",
    "TRUNCATE projection.sizes_v1",
)


@pytest.fixture
async def projector(database: str) -> AsyncIterator[Ledger]:
    """The ledger, opened by a login that has the role runfold_projector and no other."""
    async with (
        with_login(database, "runfold_projector", rights=("read",), project="*") as url,
        Ledger.open(url, PROJECT) as opened,
    ):
        yield opened


async def test_a_projector_does_everything_that_keeps_projections_up(
    ledger: Ledger, projector: Ledger
) -> None:
    run = (await ledger.submit("parse")).run_id
    await read(ledger, run, "4")
    for projection in (sizes(), *declared().values()):
        await install(projector.pool, projection)
        await CatchUp(projector.pool, projection).to_the_end()
    assert await sizes_of(ledger) == [("parse", 1, 4)]

    done = await refold(projector.pool, sizes())
    newer = await refold(projector.pool, sizes(2))

    assert (done.wrong, done.bad) == (0, ())
    assert await drop_replaced(projector.pool, "sizes") == [done.kept_in, newer.kept_in]
    assert await drop(projector.pool, "sizes") == ["projection.sizes_v2"]
    with pytest.raises(ProjectionNotFound):
        await drop(projector.pool, "sizes")
    assert "sizes" not in {status.name for status in await statuses(ledger.pool, {})}


@pytest.mark.usefixtures("template")  # whose upgrade makes the roles, which this owner may not
async def test_an_owner_without_other_rights_rebuilds_what_a_projector_installed(
    empty_database: str,
) -> None:
    async with with_login(empty_database) as owned:
        await _own_database(empty_database, owned.split("//")[1].split(":")[0])
        await schema.upgrade(owned)
        async with (
            with_login(empty_database, "runfold_projector", rights=("read",), project="*") as url,
            Ledger.open(owned, PROJECT, create_project=True) as owner,
            Ledger.open(url, PROJECT) as projector,
        ):
            await install(projector.pool, sizes())
            await read(owner, (await owner.submit("parse")).run_id, "4")
            await CatchUp(projector.pool, sizes()).to_the_end()

            assert (await refold(owner.pool, sizes())).wrong == 0
            assert (await refold(projector.pool, sizes(2))).wrong is None
            assert (await refold(owner.pool, sizes(2))).wrong == 0
            assert await sizes_of(owner) == [("parse", 1, 4)]
        await _own_database(empty_database, "CURRENT_USER")


async def _own_database(url: str, owner: str) -> None:
    superuser = await asyncpg.connect(driver_url(url))
    name = await superuser.fetchval("SELECT current_database()")
    await superuser.execute(f'ALTER DATABASE "{name}" OWNER TO {owner}')
    await superuser.close()


async def test_a_projector_can_plant_nothing_in_what_the_owner_writes_to(
    projector: Ledger, subtests: pytest.Subtests
) -> None:
    for attack in ATTACKS:
        with subtests.test(attack):
            await install(projector.pool, sizes())

            with pytest.raises(asyncpg.PostgresError) as refused:
                await projector.pool.execute(attack)

            assert refused.value.sqlstate in {"42501", "42883"}


async def test_a_worker_and_a_reader_only_read(database: str, projector: Ledger) -> None:
    await install(projector.pool, sizes())
    for role in ("runfold_worker", "runfold_reader"):
        async with with_login(database, role, rights=("read", "work")) as url:
            connection = await asyncpg.connect(driver_url(url))
            try:
                assert await connection.fetch("SELECT * FROM projection.sizes") == []
                for statement in (
                    "DELETE FROM projection.sizes_v1",
                    "SELECT ledger.drop_projection_tables('sizes', true)",
                    "SELECT ledger.make_projection_table('x_v1', '{a}', '{text}', '{}', '{a}')",
                ):
                    with pytest.raises(asyncpg.InsufficientPrivilegeError):
                        await connection.execute(statement)
            finally:
                await connection.close()


NO_TABLES = (
    "'event', '{a}', '{text}', '{}', '{a}'",
    "'x_v1; DROP TABLE ledger.event', '{a}', '{text}', '{}', '{a}'",
    "'x_v1', '{a}', '{text DEFAULT current_user}', '{}', '{a}'",
    "'x_v1', ARRAY['a int); DROP TABLE ledger.event; --'], '{text}', '{}', '{a}'",
    "'x_v1', '{a,b}', '{text}', '{}', '{a}'",
    "'x_v1', '{a}', '{text}', '{}', '{b}'",
    "'x_v1', '{a}', '{text}', '{}', '{}'",
)


async def test_the_function_that_makes_tables_makes_nothing_else(
    projector: Ledger, subtests: pytest.Subtests
) -> None:
    for arguments in NO_TABLES:
        with subtests.test(arguments):
            with pytest.raises(asyncpg.PostgresError) as refused:
                await projector.pool.execute(f"SELECT ledger.make_projection_table({arguments})")
            assert refused.value.sqlstate == "22023"


FOREIGN = (
    "pg_sleep(1)",
    "(SELECT 1)",
    "reads + (TABLE ledger.project)",
    "ledger.grant_role('a', 'b')",
    "reads::regclass",
    'reads || "kind"',
    "kind || E'\\\\x41'",
    "reads -- comment",
    "reads /* comment */",
    "reads; DROP TABLE ledger.event",
    "reads) FROM projection.sizes_v1, (SELECT 1",
    "kind(reads)",
    "(reads).pg_sleep",
    "$$text$$",
    "current_user",
    "1e5",
)


async def test_what_is_derived_can_do_nothing_to_its_readers_in_python_and_in_sql(
    ledger: Ledger, subtests: pytest.Subtests
) -> None:
    for expression in FOREIGN:
        with subtests.test(expression):
            with pytest.raises(InvalidValue, match="derived column"):
                check_derived("planted", expression, ["kind", "reads"])
            with pytest.raises(asyncpg.PostgresError) as refused:
                await ledger.pool.execute(
                    "SELECT ledger.check_derived($1, '{kind,reads}')", expression
                )
            assert refused.value.sqlstate == "22023"


async def test_a_column_with_a_reserved_word_for_a_name_is_nothing_to_derive_from(
    ledger: Ledger,
) -> None:
    with pytest.raises(asyncpg.PostgresError) as refused:
        await ledger.pool.execute(
            "SELECT ledger.check_derived('(select usename from pg_user)', "
            "'{select,usename,from,pg_user}')"
        )
    assert refused.value.sqlstate == "22023"


async def test_what_is_derived_may_compute(projector: Ledger) -> None:
    derived = {
        "half": "round(reads / 2.0, 1)",
        "many": "CASE WHEN reads >= 10 AND kind IS DISTINCT FROM 'it''s' THEN 'many' END",
        "share": "reads::numeric / nullif(reads + 1, 0)",
        "age": "extract(epoch FROM ledger.now() - seen)",
    }
    seen = Projection(
        "seen",
        key={"kind": of_run("kind")},
        columns={"reads": count(), "seen": last("recorded_at")},
        derived=derived,
    )

    await install(projector.pool, seen)

    rows = await projector.pool.fetch("SELECT half, many, share, age FROM projection.seen")
    assert rows == []


async def test_a_table_of_another_owner_is_never_written_to(
    ledger: Ledger, connection: asyncpg.Connection[Any]
) -> None:
    await install(ledger.pool, sizes())
    await connection.execute("GRANT CREATE ON SCHEMA projection TO runfold_projector")
    await connection.execute("ALTER TABLE projection.sizes_v1 OWNER TO runfold_projector")

    with pytest.raises(TableChanged, match="belongs to runfold_projector"):
        await check_table(connection, sizes())
    with pytest.raises(TableChanged):
        await install(ledger.pool, sizes())


async def test_a_login_without_the_role_is_told_which_one_it_lacks(database: str) -> None:
    async with (
        with_login(database, "runfold_worker", rights=("read", "work")) as url,
        Ledger.open(url, PROJECT) as worker,
    ):
        with pytest.raises(AccessDenied, match="runfold_projector"):
            await install(worker.pool, sizes())


async def test_who_may_read_one_project_hears_that_progress_is_that_of_all(
    ledger: Ledger, database: str, projector: Ledger
) -> None:
    run = (await ledger.submit("parse")).run_id
    await read(ledger, run, "4")
    await install(projector.pool, sizes())
    await CatchUp(projector.pool, sizes()).to_the_end()

    async with (
        with_login(database, "runfold_reader", rights=["read"]) as url,
        Ledger.open(url, PROJECT) as reader,
    ):
        [status] = await statuses(reader.pool, {"sizes": sizes()})
        with pytest.raises(ProjectionUnseen, match=r"read view projection\.sizes in SQL"):
            await rows(reader.pool, "sizes")

        assert (status.state, status.events, status.behind) == ("unseen", 0, 0)


async def test_a_projector_whose_right_is_taken_away_within_a_page_commits_nothing(
    ledger: Ledger, projector: Ledger, connection: asyncpg.Connection[Any]
) -> None:
    """Its checkpoint would stay, and what it wrote would be folded once more."""
    login = projector.project.speaker
    assert login is not None

    async def send(inside: asyncpg.Connection[Any], events: Sequence[Event]) -> None:
        await inside.execute("INSERT INTO sent SELECT FROM generate_series(1, $1)", len(events))
        if rights:
            await grant(connection, login, rights, project="*")

    rights = ["submit"]
    await connection.execute("CREATE TABLE public.sent (); GRANT INSERT ON sent TO PUBLIC")
    outbox = Projection("outbox", apply=send)
    await install(projector.pool, outbox)
    await ledger.submit("parse")

    with pytest.raises(AccessDenied, match="lacks the right read in all projects"):
        await CatchUp(projector.pool, outbox).to_the_end()
    with pytest.raises(AccessDenied, match="lacks the right read in all projects"):
        await CatchUp(projector.pool, outbox).to_the_end()
    assert await connection.fetchval("SELECT count(*) FROM sent") == 0

    rights = []
    await grant(connection, login, ["read"], project="*")
    assert await CatchUp(projector.pool, outbox).to_the_end() == 1
    assert await connection.fetchval("SELECT count(*) FROM sent") == 1


async def test_a_right_that_is_taken_and_given_back_within_a_page_hides_no_event(
    ledger: Ledger, projector: Ledger, connection: asyncpg.Connection[Any], database: str
) -> None:
    """The page would be read without its events, and passed."""
    login = projector.project.speaker
    assert login is not None
    await connection.execute("INSERT INTO ledger.project (project_id) VALUES ('other')")
    await grant(connection, login, ["read"], project="other")  # or the page itself is refused
    await install(projector.pool, sizes())
    await read(ledger, (await ledger.submit("parse")).run_id, "4")
    async with holding(database, EVENTS_LOCKED) as events, holding(database, MOVES_LOCKED) as moves:
        page = asyncio.create_task(CatchUp(projector.pool, sizes()).step())
        await awaited(events)
        await grant(connection, login, ["submit"], project="*")
        await events.execute("ROLLBACK")
        await awaited(moves)
        await grant(connection, login, ["read"], project="*")
        await moves.execute("ROLLBACK")

        with pytest.raises(DatabaseUnavailable, match="were changed meanwhile"):
            await page
    await CatchUp(projector.pool, sizes()).to_the_end()
    assert await sizes_of(ledger) == [("parse", 1, 4)]


async def test_a_rebuild_whose_right_is_taken_away_leaves_nothing_out_and_counts_nothing_twice(
    ledger: Ledger, projector: Ledger, connection: asyncpg.Connection[Any], database: str
) -> None:
    login = projector.project.speaker
    assert login is not None
    await install(projector.pool, sizes())
    await read(ledger, (await ledger.submit("parse")).run_id, "4")
    way = plan(sizes(), await feed.now(projector.pool))

    async with Rebuild.begin(projector.pool, way) as rebuild:
        async with holding(database, EVENTS_LOCKED) as events:
            filling = asyncio.create_task(rebuild.fill(1))
            await awaited(events)
            await grant(connection, login, ["submit"], project="*")
        with pytest.raises(AccessDenied, match="lacks the right read in all projects"):
            await filling
        with pytest.raises(AccessDenied, match="lacks the right read in all projects"):
            await rebuild.fill(1)
        assert rebuild.moment is not None
        here = Checkpoint.parse(rebuild.moment)
        with pytest.raises(AccessDenied, match="lacks the right read in all projects"):
            await replace_table(projector.pool, rebuild, sizes(), here, NOBODY)
    await grant(connection, login, ["read"], project="*")

    done = await refold(projector.pool, sizes())
    assert (done.resumed, done.wrong) == (True, 0)
    assert await sizes_of(ledger) == [("parse", 1, 4)]


EVENTS_LOCKED = "LOCK TABLE ledger.event IN ACCESS EXCLUSIVE MODE"
MOVES_LOCKED = "LOCK TABLE ledger.projection IN SHARE MODE"


@asynccontextmanager
async def holding(database: str, lock: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    """Hold a lock, on a connection of its own, until it rolls back or the block ends."""
    held = await asyncpg.connect(driver_url(database))
    try:
        await held.execute("BEGIN")
        await held.execute(lock)
        yield held
    finally:
        await held.close()
