"""A rebuild that is broken off, or whose sessions end: nothing is lost, folded twice or left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import asyncpg
import pytest

from runfold.ledger import Ledger
from runfold.ledger.archive.request import ARCHIVE
from runfold.ledger.errors import DatabaseUnavailable
from runfold.ledger.postgres.at_work import at_work
from runfold.projections.declared import refold as refolding
from runfold.projections.declared.catch_up import CatchUp
from runfold.projections.declared.dropping import drop_replaced
from runfold.projections.declared.installing import install
from runfold.projections.declared.refold import refold, refold_until
from runfold.projections.declared.status import unfinished
from runfold.projections.errors import RebuildRunning
from runfold.projections.models.counts import RUN_COUNTS
from runfold.projections.rebuild import Rebuild
from runfold.projections.state import replay as replays
from runfold.projections.state.replay import replay, replay_until
from tests.support.archiving import WHY, archived, ended
from tests.support.past_month import MONTH, THEN, in_that_month

_END = "SELECT pg_terminate_backend(pid, 120000) FROM ledger.at_work WHERE name LIKE $1"
_TABLES = """
SELECT relname FROM pg_class WHERE relkind = 'r' AND relname ~ '^(rebuild|replaced)_[0-9]+_of_'
ORDER BY relname
"""
_ROWS = "SELECT row.*::text AS row FROM projection.run_counts AS row ORDER BY 1"


class Killed(Exception):
    """The process that rebuilds is killed."""


async def killed(*_: Any, **__: Any) -> Any:
    """Be killed."""
    raise Killed


async def rows(ledger: Ledger) -> list[str]:
    """Return the rows of the projection when it has read everything."""
    await CatchUp(ledger.pool, RUN_COUNTS).to_the_end()
    return [row["row"] for row in await ledger.pool.fetch(_ROWS)]


async def test_a_month_that_leaves_while_it_is_rebuilt_is_not_passed_over(
    ledger: Ledger,
    connection: asyncpg.Connection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    subtests: pytest.Subtests,
) -> None:
    async with in_that_month(connection):
        await ended(ledger)
    await ended(ledger)
    await install(ledger.pool, RUN_COUNTS)
    before = await rows(ledger)
    await archived(ledger, tmp_path)
    fill = Rebuild.fill

    async def without_its_month(rebuild: Rebuild, *args: Any, **options: Any) -> Any:
        await connection.execute(_END, ARCHIVE)
        await ledger.archive.detach(MONTH, **WHY)
        return await fill(rebuild, *args, **options)

    for name, again in (
        ("refold", lambda: refold(ledger.pool, RUN_COUNTS)),
        ("replay", lambda: replay(ledger, **WHY)),
        ("replay_until", lambda: replay_until(ledger, THEN.replace(day=28))),
    ):
        with subtests.test(name):
            with monkeypatch.context() as patched:
                patched.setattr(Rebuild, "fill", without_its_month)
                with pytest.raises(DatabaseUnavailable):
                    await again()
            assert await rows(ledger) == before
            done = await again()
            assert done.resumed
            assert not done.wrong
            assert done.progress.events > 0
            assert await rows(ledger) == before


async def test_a_rebuild_that_another_process_went_on_with_folds_nothing_twice(
    ledger: Ledger, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ended(ledger)
    await install(ledger.pool, RUN_COUNTS)
    fill = Rebuild.fill

    async def overtaken(rebuild: Rebuild, *args: Any, **options: Any) -> Any:
        bad = await fill(rebuild, *args, **options)
        await ended(ledger)
        await connection.execute(_END, f"rebuild {rebuild.rebuild_id}")
        patched.setattr(Rebuild, "fill", fill)
        with pytest.MonkeyPatch.context() as killing:
            killing.setattr(refolding, "replace_table", killed)
            with pytest.raises(Killed):  # once it has caught up
                await refold(ledger.pool, RUN_COUNTS)
        return bad

    with monkeypatch.context() as patched:
        patched.setattr(Rebuild, "fill", overtaken)
        with pytest.raises((RebuildRunning, DatabaseUnavailable)):
            await refold(ledger.pool, RUN_COUNTS)

    before = await rows(ledger)
    done = await refold(ledger.pool, RUN_COUNTS)
    assert done.resumed
    assert done.wrong == 0
    assert await rows(ledger) == before


async def test_what_was_broken_off_is_dropped_unless_somebody_is_at_work_on_it(
    ledger: Ledger, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ended(ledger)
    then = (await ledger.runs())[0].created_at
    await ledger.submit("parse")
    await install(ledger.pool, RUN_COUNTS)

    async def tables() -> list[str]:
        return [row["relname"] for row in await connection.fetch(_TABLES)]

    with monkeypatch.context() as patched:
        patched.setattr(Rebuild, "fill", killed)
        for broken_off in (
            refold(ledger.pool, RUN_COUNTS),
            refold_until(ledger.pool, RUN_COUNTS, then),
            replay(ledger, **WHY),
            replay_until(ledger, then),
        ):
            with pytest.raises(Killed):
                await broken_off
    left = await tables()
    assert len(left) == 4

    async with at_work(connection, left[0].removesuffix("_of_run_counts").replace("_", " ")):
        assert await drop_replaced(ledger.pool, "run_counts") == [f"projection.{left[1]}"]
    assert await replays.drop_replaced(ledger) == [f"ledger.{table}" for table in left[2:]]
    assert await tables() == left[:1]
    assert [rebuild.projection for rebuild in await unfinished(ledger.pool)] == ["run_counts"]
    assert await drop_replaced(ledger.pool, "run_counts") == [f"projection.{left[0]}"]
    assert await unfinished(ledger.pool) == []


async def test_a_rebuild_whose_table_somebody_dropped_begins_anew(
    ledger: Ledger, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ended(ledger)
    await install(ledger.pool, RUN_COUNTS)
    before = await rows(ledger)
    with monkeypatch.context() as patched:
        patched.setattr(Rebuild, "fill", killed)
        with pytest.raises(Killed):
            await refold(ledger.pool, RUN_COUNTS)
    [table] = [row["relname"] for row in await connection.fetch(_TABLES)]
    await connection.execute(f"DROP TABLE projection.{table}")

    done = await refold(ledger.pool, RUN_COUNTS)

    assert not done.resumed
    assert done.wrong == 0
    assert await rows(ledger) == before
    await drop_replaced(ledger.pool, "run_counts")
    assert await unfinished(ledger.pool) == []
