"""Checks of what reads the feed: projections, and webhooks with their deliveries."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial
from operator import itemgetter
from typing import Any, Final, NamedTuple, TypeAlias

from runfold.console.cli.health.check import Check, Level, shown
from runfold.console.cli.health.work_checks import WAITED_SECONDS
from runfold.console.shared.plain import number_of, span
from runfold.ledger.access import EVERYWHERE
from runfold.ledger.errors import CheckpointUnknown, FeedArchived, FeedMoved
from runfold.ledger.postgres.connections import Pool, fetch
from runfold.ledger.postgres.opening import Database
from runfold.ledger.reading import feed
from runfold.ledger.reading.feed import Checkpoint, Filter
from runfold.ledger.reading.permitted import check_may
from runfold.ledger.webhooks import delivery_id
from runfold.projections.declared.catch_up import checkpoint_of
from runfold.projections.declared.projection import IN_FORCE

Problem: TypeAlias = tuple[Level, str]

_PAUSED_SECONDS: Final = 86_400.0
"""How long a pause may last before it is told."""
_LOOKED_AT: Final = 1_000
"""Deliveries of a webhook that are looked at for each problem."""
_TRIED: Final = 3
"""The attempts after which a delivery has failed for minutes."""

_UNREAD: Final = f"""
SELECT extract(epoch FROM ledger.now() - event.recorded_at)::float8 AS seconds
FROM {feed.PAGE} AS event ORDER BY event.position LIMIT 1
"""
_PROJECTIONS: Final = f"""
SELECT projection.*, (SELECT count(*) FROM ledger.projection_aside AS aside
  WHERE aside.relation = {IN_FORCE}) AS set_aside
FROM ledger.projection AS projection ORDER BY projection.name
"""
# A sender puts a delivery off before it sends it, so that none is due for long while one works.
# The instant is a subquery, because no index is searched for a volatile value.
WEBHOOKS: Final = f"""
SELECT hook.project_id, hook.webhook_id, hook.is_paused, hook.checkpoint,
  stuck.run_id, stuck.version, stuck.body,
  (SELECT count(*) FROM (SELECT FROM ledger.delivery AS due
    WHERE due.webhook_id = hook.webhook_id AND NOT due.follows
      AND due.next_at < (SELECT ledger.now() - interval '{WAITED_SECONDS} s')
    LIMIT {_LOOKED_AT}) AS counted) AS due,
  (SELECT count(*) FROM (SELECT sent.* FROM ledger.delivery AS sent
    WHERE sent.webhook_id = hook.webhook_id
    ORDER BY sent.created_at DESC LIMIT {_LOOKED_AT}) AS newest
    WHERE newest.delivered_at IS NULL AND newest.attempts > 0
      AND (newest.next_at IS NULL OR newest.attempts >= {_TRIED})) AS failing
FROM ledger.webhook AS hook LEFT JOIN LATERAL (
  SELECT first.* FROM (SELECT DISTINCT ON (open.run_id) open.*
    FROM (SELECT waiting.* FROM ledger.delivery AS waiting
      WHERE waiting.webhook_id = hook.webhook_id AND waiting.next_at IS NOT NULL
      ORDER BY waiting.run_id, waiting.version LIMIT {_LOOKED_AT}) AS open
    ORDER BY open.run_id, open.version) AS first
  WHERE first.follows OR first.next_at > (SELECT ledger.now() + interval '30 days')
  ORDER BY first.run_id LIMIT 1
) AS stuck ON true
ORDER BY hook.project_id, hook.webhook_id
"""
"""The webhooks; `stuck`: the first open delivery of a run, if it waits for an earlier one, or for
longer than any pause."""
_SEES: Final = """
SELECT cardinality(ledger.projects_seen('audit', 'admin')) > 0 AS webhooks,
  has_table_privilege('ledger.webhook_secret', 'SELECT') AS secrets
"""
_UNSIGNED: Final = """
SELECT hook.webhook_id FROM ledger.webhook AS hook WHERE NOT EXISTS (
  SELECT FROM ledger.webhook_secret AS secret WHERE secret.webhook_id = hook.webhook_id)
"""


async def projections(database: Database) -> Check:
    """Whether every installed projection reads what is new, and has all runs in its table."""
    rows = await fetch(database.pool, _PROJECTIONS)
    if not rows:
        await check_may(database.pool, EVERYWHERE, "read", "audit")
    problems = [problem for row in rows for problem in await _of_projection(database.pool, row)]
    return _check("projections", problems, f"{number_of(len(rows), 'projection')} in order")


async def webhooks(database: Database) -> Check:
    """Whether every webhook is sent what is new, and takes it."""
    [sees] = await fetch(database.pool, _SEES)
    if not sees["webhooks"]:
        await check_may(database.pool, EVERYWHERE, "audit", "admin")
    rows = await fetch(database.pool, WEBHOOKS)
    without = await fetch(database.pool, _UNSIGNED) if sees["secrets"] else ()
    unsigned = {row["webhook_id"] for row in without}
    problems = [
        problem for row in rows for problem in await _of_webhook(database.pool, row, unsigned)
    ]
    return _check("webhooks", problems, f"{number_of(len(rows), 'webhook')} in order")


async def _of_projection(pool: Pool, row: Mapping[str, Any]) -> list[Problem]:
    name, why = row["name"], f"`runfold projections status {row['name']}` says why"
    if row["failed_at"] is not None:
        where = f"version {row['error_version']} of run {row['error_run_id']}"
        return [(Level.FAILED, f"{name} has stopped at {where}: {why}")]
    problems: list[Problem] = []
    if row["set_aside"]:
        without = f"{name} is without {number_of(row['set_aside'], 'run')} that it has set aside"
        problems.append((Level.WARNING, f"{without}: {why}"))
    remedies = _Remedies(
        lost=f"`runfold projections rebuild {name}`",
        paused=f"`runfold projections resume {name}`, or `drop {name}`",
        behind="keep `runfold projections run` running; its log says what stops it",
    )
    read = partial(checkpoint_of, row)
    is_paused = row["paused_at"] is not None
    return [*problems, *await _of_reading(pool, name, read, remedies, is_paused=is_paused)]


async def _of_webhook(pool: Pool, row: Mapping[str, Any], unsigned: set[str]) -> list[Problem]:
    id_ = row["webhook_id"]
    name = f"{id_} in project {row['project_id']}"
    if id_ in unsigned:
        lost = f"{name} has lost its secret, and is sent nothing"
        return [(Level.FAILED, f"{lost}: `runfold webhooks remove {id_}`, and add it again")]
    remedies = _Remedies(
        lost=f"`runfold webhooks pause {id_}`, and `resume {id_} --from-now`",
        paused=f"`runfold webhooks resume {id_}`, or `remove {id_}`",
        behind="keep `runfold webhooks run` running",
    )
    read, is_paused = partial(Checkpoint.kept, row["checkpoint"]), row["is_paused"]
    reading = await _of_reading(pool, name, read, remedies, is_paused=is_paused)
    return [*_of_deliveries(name, row), *reading]


class _Remedies(NamedTuple):
    lost: str
    paused: str
    behind: str


async def _of_reading(
    pool: Pool, name: str, read: Callable[[], Checkpoint], remedies: _Remedies, *, is_paused: bool
) -> list[Problem]:
    """Return what keeps a reader from going on from its checkpoint, or how late it is."""
    try:
        seconds = await _unread(pool, read())
    except (CheckpointUnknown, FeedArchived):
        return [(Level.FAILED, f"{name} cannot go on from its checkpoint: {remedies.lost}")]
    except FeedMoved as error:
        return [(Level.FAILED, f"{name} stands still: {error}")]
    if seconds <= (_PAUSED_SECONDS if is_paused else WAITED_SECONDS):
        return []
    late = f"has not read an event of {span(timedelta(seconds=seconds))} ago"
    if is_paused:
        return [(Level.WARNING, f"{name} is paused and {late}: {remedies.paused}")]
    return [(Level.WARNING, f"{name} {late}: {remedies.behind}")]


def _of_deliveries(name: str, row: Mapping[str, Any]) -> Iterator[Problem]:
    id_ = row["webhook_id"]
    if row["due"] and not row["is_paused"]:
        due = f"{name} has {_deliveries(row['due'])} that should have been sent a minute ago"
        remedy = "does `runfold webhooks run` run, and does the endpoint answer soon?"
        yield Level.WARNING, f"{due}: {remedy}"
    if row["failing"]:
        told = f"{name} has not taken {_deliveries(row['failing'])}"
        yield Level.WARNING, f"{told}: `runfold webhooks deliveries {id_}` says why"
    if row["run_id"] is not None:
        stuck = delivery_id(id_, row["run_id"], row["version"], row["body"])
        never = f"{name} has a delivery that would never be due"
        yield Level.WARNING, f"{never}: `runfold webhooks resend {stuck}`"


async def _unread(pool: Pool, checkpoint: Checkpoint) -> float:
    """Return how long ago the first event after a checkpoint was recorded; 0 if there is none."""
    towards = await feed.towards(pool, checkpoint, 1)
    if towards is None:
        return 0.0
    rows = await fetch(pool, _UNREAD, *feed.page_arguments(towards, 1, Filter()))
    return rows[0]["seconds"] if rows else 0.0


def _deliveries(number: int) -> str:
    more = " or more" if number >= _LOOKED_AT else ""
    return f"{number:,}{more} deliver{'y' if number == 1 else 'ies'}"


def _check(name: str, problems: Sequence[Problem], in_order: str) -> Check:
    if not problems:
        return Check(name, Level.OK, in_order)
    worst_first = sorted(problems, key=lambda problem: problem[0] is not Level.FAILED)
    return Check(name, worst_first[0][0], shown(worst_first, itemgetter(1)))
