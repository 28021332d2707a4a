"""The last steps of a rebuild: the shadow catches up, is compared, and replaces the table."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import asyncpg

from runfold.ledger.access import EVERYWHERE
from runfold.ledger.errors import CheckpointUnknown, FeedArchived
from runfold.ledger.postgres.connections import FAILURES, Pool
from runfold.ledger.postgres.errors import translated
from runfold.ledger.postgres.locks import with_lock_retries
from runfold.ledger.reading import feed
from runfold.ledger.reading.feed import Checkpoint
from runfold.ledger.reading.permitted import permitted
from runfold.projections.declared.catch_up import BATCH, checkpoint_of
from runfold.projections.declared.installing import check_table, publish
from runfold.projections.declared.interventions import NO_ERROR
from runfold.projections.declared.pages import take_page
from runfold.projections.declared.projection import Projection
from runfold.projections.errors import RebuildRunning, TableChanged
from runfold.projections.rebuild import Rebuild

MOST_BEHIND: Final = 20_000
"""Events that the live table may lack to be compared: it takes them under the exchange's locks."""
INSTALLED: Final = "SELECT * FROM ledger.projection WHERE name = $1"
# Only from where this process was: one whose session ended may have been resumed by another.
_HERE: Final = "rebuild_id = $1 AND moment = $2 AND finished_at IS NULL RETURNING rebuild_id"
_MOMENT: Final = f"UPDATE ledger.rebuild SET moment = $3 WHERE {_HERE}"
_FINISHED: Final = f"UPDATE ledger.rebuild SET finished_at = clock_timestamp() WHERE {_HERE}"
_REPLACED: Final = f"""
UPDATE ledger.projection SET version = $2, digest = $3, generation = $4, snapshot = $5,
  target = NULL, position = 0, moved_at = clock_timestamp(), {NO_ERROR}
WHERE name = $1
"""
# By the first event that is left out: a rebuild leaves out the whole run.
_ASIDE_DIFFERS: Final = """
SELECT EXISTS (
  SELECT FROM (
    SELECT project_id, run_id, first_position FROM ledger.projection_aside WHERE relation = $1
  ) AS one FULL JOIN (
    SELECT project_id, run_id, first_position FROM ledger.projection_aside WHERE relation = $2
  ) AS other USING (project_id, run_id, first_position)
  WHERE one IS NULL OR other IS NULL)
"""
NOTED: Final = "SELECT ledger.note_rebuild($1, $2, $3, $4, $5, $6, $7)"
_EXCHANGE: Final = "SELECT ledger.exchange_projection_table($1, $2, $3)"


@dataclass(frozen=True, slots=True)
class Order:
    """Who has a projection rebuilt, and why; the control history keeps it."""

    actor: str | None = None
    reason: str | None = None


async def catch_up(pool: Pool, rebuild: Rebuild, projection: Projection) -> Checkpoint:
    """Fold into the shadow what came since its moment, a page in each transaction.

    Raises RebuildRunning.
    """
    assert rebuild.moment is not None
    checkpoint = Checkpoint.parse(rebuild.moment)
    while True:
        try:
            async with (
                pool.acquire() as connection,
                connection.transaction(),
                permitted(connection, EVERYWHERE, "read"),
            ):
                following = await _fold_page(connection, rebuild, projection, checkpoint)
        except (*FAILURES, OSError) as error:
            raise translated(error) from error
        if following is None:
            return checkpoint
        checkpoint = following


async def _fold_page(
    connection: Any, rebuild: Rebuild, projection: Projection, checkpoint: Checkpoint
) -> Checkpoint | None:
    """Fold the next page into the shadow; return the checkpoint after it, None if none is new."""
    towards = await feed.towards(connection, checkpoint, BATCH)
    if towards is None:
        return None
    page = await take_page(connection, projection, towards, BATCH, rebuild.shadow)
    await _moved(connection, _MOMENT, rebuild, checkpoint, str(page.checkpoint))
    return page.checkpoint


async def _moved(
    connection: Any, statement: str, rebuild: Rebuild, checkpoint: Checkpoint, *values: str
) -> None:
    """Move a rebuild on from a checkpoint. Raises RebuildRunning if another process has."""
    moved = await connection.fetchrow(statement, rebuild.rebuild_id, str(checkpoint), *values)
    if moved is None:
        raise RebuildRunning(rebuild.plan.projection, rebuild.rebuild_id)


async def replace_table(
    pool: Pool,
    rebuild: Rebuild,
    projection: Projection,
    checkpoint: Checkpoint,
    order: Order,
) -> tuple[int | None, str]:
    """Put the shadow in the place of the live table; the checkpoint's lock keeps others out.

    The exchange is on record. Returns how many rows were wrong and the old table's name. Locks: the
    row of `ledger.projection`, then that of the rebuild, then both tables, then the control history
    of all projects. Raises LockTimeout or RebuildRunning.
    """

    async def work(connection: Any) -> tuple[int | None, str]:
        async with permitted(connection, EVERYWHERE, "read"):
            return await _exchange(connection, rebuild, projection, checkpoint, order)

    return await with_lock_retries(pool, work, f"table {projection.table}")


async def _exchange(
    connection: Any,
    rebuild: Rebuild,
    projection: Projection,
    checkpoint: Checkpoint,
    order: Order,
) -> tuple[int | None, str]:
    row = await connection.fetchrow(f"{INSTALLED} FOR UPDATE", projection.name)
    await _moved(connection, _FINISHED, rebuild, checkpoint)
    here = await feed.now(connection)
    await _fold_up_to(connection, projection, checkpoint, here, rebuild.shadow)
    wrong = await _compare(connection, projection, row, here, rebuild.shadow)
    identity = (projection.name, projection.version)
    kept_in = await connection.fetchval(_EXCHANGE, *identity, rebuild.rebuild_id)
    await publish(connection, projection)
    place = (here.generation, here.moment)
    await connection.execute(_REPLACED, *identity, projection.digest, *place)
    facts = (rebuild.rebuild_id, wrong, order.actor, order.reason)
    await connection.execute(NOTED, projection.name, "swapped", projection.version, *facts)
    return wrong, kept_in


async def _fold_up_to(
    connection: Any, projection: Projection, checkpoint: Checkpoint, here: Checkpoint, table: str
) -> None:
    """Fold into a table everything from its checkpoint up to this moment."""
    while checkpoint.target is not None or checkpoint.generation != here.generation:
        towards = await feed.towards(connection, checkpoint, BATCH)
        if towards is None:  # a generation has ended, and the one after it has no events yet
            return
        checkpoint = (await take_page(connection, projection, towards, BATCH, table)).checkpoint
    checkpoint = replace(checkpoint, target=here.moment, position=0)
    while checkpoint.target is not None:
        checkpoint = (await take_page(connection, projection, checkpoint, BATCH, table)).checkpoint


async def _compare(
    connection: Any, projection: Projection, row: Any, here: Checkpoint, shadow: str
) -> int | None:
    """Count the rows that the live table has wrong, once it is as far as the shadow.

    None if it has none of this version, or no checkpoint, or is so far behind that others would
    wait for it.
    """
    stood = _stood(row) if row["version"] == projection.version else None
    if stood is None or here.seen_position - stood.seen_position > MOST_BEHIND:
        return None
    try:
        await check_table(connection, projection)
    except TableChanged:
        return None
    live, key = projection.table, ", ".join(f'"{name}"' for name in projection.key)
    try:
        async with connection.transaction():
            await _fold_up_to(connection, projection, stood, here, live)
    except (FeedArchived, CheckpointUnknown):  # the live table cannot come here any more
        return None
    except asyncpg.PostgresError as error:
        if isinstance(translated(error), FeedArchived | CheckpointUnknown):
            return None
        raise
    if await connection.fetchval(_ASIDE_DIFFERS, live, shadow):
        return None
    return int(
        await connection.fetchval(
            f"SELECT count(*) FROM {live} AS stored FULL JOIN {shadow} AS rebuilt USING ({key}) "
            "WHERE stored::record IS DISTINCT FROM rebuilt::record"
        )
    )


def _stood(row: Any) -> Checkpoint | None:
    """Return how far the live table is; None if its checkpoint was damaged."""
    try:
        return checkpoint_of(row)
    except CheckpointUnknown:
        return None
