"""Metrics of the fleet for Prometheus, from the read models: exact, the same from any process.

Counters are what the events say, so no restart of a worker resets them and no process has to be
asked. A scrape costs the same whatever the number of runs. Needs the extra `runfold[metrics]`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import asyncpg

from runfold.ledger import names
from runfold.ledger.errors import ConfigurationError
from runfold.ledger.postgres.connections import FAILURES, Pool, fetch
from runfold.ledger.postgres.errors import translated
from runfold.ledger.postgres.locks import lock_limit
from runfold.projections.declared.projection import IN_FORCE

PATIENCE: Final = "1s"
"""How long a scrape waits for a read model that somebody exchanges, drops or keeps locked."""
MAX_KINDS: Final = 1_000
"""The most projects and kinds of one scrape: each label set costs storage."""

_COUNTS: Final = f"""
SELECT project_id, kind, state, runs, entered FROM projection.run_counts
ORDER BY project_id, kind, state LIMIT {MAX_KINDS * 8}
"""
_SPENT: Final = f"""
SELECT project_id, kind, sum(cost_usd) AS cost_usd, sum(step_count)::bigint AS steps
FROM projection.spending GROUP BY project_id, kind ORDER BY project_id, kind LIMIT {MAX_KINDS}
"""
_LEASES: Final = f"""
SELECT project_id, sum(leases)::bigint AS leases, sum(beats)::bigint AS beats,
  sum(lost)::bigint AS lost,
  count(*) FILTER (WHERE last_seen > ledger.now() - interval '2 minutes') AS workers
FROM projection.worker_activity GROUP BY project_id ORDER BY project_id LIMIT {MAX_KINDS}
"""
_WAITING: Final = f"""
SELECT project_id, count(*) AS waiting,
  coalesce(extract(epoch FROM max(waiting_for)), 0)::float8 AS oldest
FROM projection.approvals WHERE decided_at IS NULL
GROUP BY project_id ORDER BY project_id LIMIT {MAX_KINDS}
"""
# By the two indexes of claims: the head of the runs that wait since they were submitted, and of
# each priority the run that came due first. Runs that sleep are not read.
_OLDEST: Final = f"""
WITH RECURSIVE known AS MATERIALIZED (
  SELECT DISTINCT project_id, kind FROM ledger.kind ORDER BY project_id, kind LIMIT {MAX_KINDS}
), level AS (
  SELECT known.project_id, known.kind, -1 AS priority, NULL::timestamptz AS available_at FROM known
  UNION ALL
  SELECT last.project_id, last.kind, higher.priority, higher.available_at FROM level AS last
  CROSS JOIN LATERAL (
    SELECT run.priority, run.available_at FROM ledger.run_state AS run
    WHERE run.project_id = last.project_id AND run.kind = last.kind
      AND run.available_at > run.created_at AND run.priority > last.priority
    ORDER BY run.priority, run.available_at LIMIT 1
  ) AS higher
), head AS (
  SELECT level.project_id, level.kind, level.available_at FROM level
  UNION ALL
  SELECT known.project_id, known.kind, first.available_at FROM known
  CROSS JOIN LATERAL (
    SELECT run.available_at FROM ledger.run_state AS run
    WHERE run.project_id = known.project_id AND run.kind = known.kind
      AND run.available_at <= run.created_at
    ORDER BY run.priority, run.run_id LIMIT 1
  ) AS first
)
SELECT head.project_id, head.kind,
  extract(epoch FROM ledger.now() - min(head.available_at))::float8 AS oldest
FROM head WHERE head.available_at <= ledger.now()
GROUP BY head.project_id, head.kind ORDER BY head.project_id, head.kind
"""
_PROJECTIONS: Final = f"""
SELECT projection.name, projection.failed_at IS NOT NULL OR EXISTS (
    SELECT FROM ledger.archive AS archived
    WHERE archived.detached AND NOT ledger.feed_passed(projection.generation,
      projection.snapshot, archived.generation, archived.last_position, archived.last_txid)
  ) AS failed,
  greatest((SELECT sequence.last_value FROM ledger.event_position AS sequence)
    - split_part(projection.snapshot, '@', 2)::bigint, 0) AS behind,
  (SELECT count(*) FROM ledger.projection_aside AS aside
   WHERE aside.relation = {IN_FORCE}) AS set_aside
FROM ledger.projection AS projection ORDER BY projection.name
"""
_READ: Final = {
    "run_counts": _COUNTS,
    "spending": _SPENT,
    "worker_activity": _LEASES,
    "approvals": _WAITING,
}
_INSTALLED: Final = """
SELECT to_regclass('projection.' || name) IS NOT NULL AS there, name FROM unnest($1::text[]) AS name
"""

Rows: TypeAlias = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric: the rows and the column that it comes from, and what names a row in its labels."""

    source: str
    column: str
    name: str
    help: str
    labels: tuple[str, ...]
    counts: bool = False
    """Whether it only grows."""


_STATE: Final = ("project", "kind", "state")
_KIND: Final = ("project", "kind")
_PROJECT: Final = ("project",)
_PROJECTION: Final = ("projection",)
_LABELS: Final = {"project": "project_id", "projection": "name"}
"""The columns that labels come from, where they have another name."""

METRICS: Final = (
    Metric("run_counts", "runs", names.RUNS, "Runs in each state now.", _STATE),
    Metric(
        "run_counts",
        "entered",
        names.ENTERED,
        "Times that runs came to a state.",
        _STATE,
        counts=True,
    ),
    Metric("spending", "cost_usd", names.COST, "What runs spent, in USD.", _KIND, counts=True),
    Metric("spending", "steps", names.STEPS, "Steps that runs recorded.", _KIND, counts=True),
    Metric(
        "worker_activity",
        "leases",
        names.LEASES,
        "Leases that workers took.",
        _PROJECT,
        counts=True,
    ),
    Metric(
        "worker_activity",
        "beats",
        names.HEARTBEATS,
        "Heartbeats that were recorded.",
        _PROJECT,
        counts=True,
    ),
    Metric(
        "worker_activity",
        "lost",
        names.LEASES_LOST,
        "Leases that a reaper ended.",
        _PROJECT,
        counts=True,
    ),
    Metric(
        "worker_activity",
        "workers",
        names.WORKERS,
        "Workers seen in the last two minutes.",
        _PROJECT,
    ),
    Metric("approvals", "waiting", names.APPROVALS, "Approvals that nobody has decided.", _PROJECT),
    Metric(
        "approvals",
        "oldest",
        names.APPROVAL_AGE,
        "How long the oldest of them has waited, in seconds.",
        _PROJECT,
    ),
    Metric(
        "oldest",
        "oldest",
        names.CLAIMABLE_AGE,
        "How long the next claimable run has waited, in seconds.",
        _KIND,
    ),
    Metric(
        "projections",
        "behind",
        names.BEHIND,
        "Positions between a projection and the newest event.",
        _PROJECTION,
    ),
    Metric(
        "projections",
        "failed",
        names.STOPPED,
        "1 for a projection that stopped at an event, or before a month that is archived.",
        _PROJECTION,
    ),
    Metric(
        "projections",
        "set_aside",
        names.SET_ASIDE,
        "Runs that a projection left out because it cannot fold them.",
        _PROJECTION,
    ),
    Metric(
        "locked",
        "locked",
        names.LOCKED,
        "1 for a read model that stayed locked: its metrics are missing from this scrape.",
        _PROJECTION,
    ),
)


async def look(pool: Pool) -> dict[str, Rows]:
    """Read what a scrape shows; read models that are not installed, or stay locked, are left out.

    Raises AccessDenied or DatabaseUnavailable.
    """
    installed = {row["name"] for row in await fetch(pool, _INSTALLED, [*_READ]) if row["there"]}
    rows: dict[str, Rows] = {}
    locked = []
    for name in (name for name in _READ if name in installed):
        read = await _read_model(pool, _READ[name])
        locked.append({"name": name, "locked": read is None})
        if read is not None:
            rows[name] = read
    rows["oldest"] = await fetch(pool, _OLDEST)
    rows["projections"] = await fetch(pool, _PROJECTIONS)
    rows["locked"] = locked
    return rows


async def _read_model(pool: Pool, statement: str) -> Rows | None:
    """Return rows of a read model, None if it stays locked."""
    try:
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute(lock_limit(PATIENCE))
            rows: Rows = await connection.fetch(statement)
            return rows
    except asyncpg.LockNotAvailableError:
        return None
    except (*FAILURES, OSError) as error:
        raise translated(error) from error


def families(rows: Mapping[str, Rows]) -> Iterator[Any]:
    """Turn what was read into metric families; raises ConfigurationError without the extra."""
    try:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    except ImportError as error:
        raise ConfigurationError(
            "metrics are served with prometheus-client: install runfold[metrics]"
        ) from error
    for metric in METRICS:
        if metric.source not in rows:
            continue
        family_type = CounterMetricFamily if metric.counts else GaugeMetricFamily
        family = family_type(metric.name, metric.help, labels=metric.labels)
        for row in rows[metric.source]:
            labels = [str(row[_LABELS.get(label, label)]) for label in metric.labels]
            family.add_metric(labels, float(row[metric.column]))
        yield family
