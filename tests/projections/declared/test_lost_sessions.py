"""A rebuild whose sessions end while it works: nothing is passed over, nothing is folded twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import asyncpg
import pytest

from runfold.ledger import Ledger
from runfold.ledger.archive.request import ARCHIVE
from runfold.ledger.errors import DatabaseUnavailable
from runfold.projections.declared import refold as refolding
from runfold.projections.declared.catch_up import CatchUp
from runfold.projections.declared.installing import install
from runfold.projections.declared.refold import refold
from runfold.projections.errors import RebuildRunning
from runfold.projections.models.counts import RUN_COUNTS
from runfold.projections.rebuild import Rebuild
from runfold.projections.state.replay import replay, replay_until
from tests.support.archiving import WHY, archived, ended
from tests.support.past_month import MONTH, THEN, in_that_month

_END = "SELECT pg_terminate_backend(pid, 120000) FROM ledger.at_work WHERE name LIKE $1"
_ROWS = "SELECT row.*::text AS row FROM projection.run_counts AS row ORDER BY 1"


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

    class Killed(Exception):
        pass

    async def killed(*_: Any) -> None:
        raise Killed

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
