"""Metrics of the fleet for Prometheus, from the read models: exact, the same from any process, and at a bounded cost.

Counters are what the events say, so no restart of a worker resets them and no process has to be asked. Needs the extra
`runfold[metrics]`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from runfold.ledger import names
from runfold.ledger.errors import ConfigurationError
from runfold.ledger.postgres.connections import Pool, fetch

MAX_KINDS: Final = 1_000
"""The most projects and kinds of one scrape: each label set costs storage."""

_COUNTS: Final = f"""
SELECT project_id, kind, state, runs, entered FROM projection.run_counts ORDER BY project_id, kind, state LIMIT {MAX_KINDS * 8}
"""
_SPENT: Final = f"""
SELECT project_id, kind, sum(cost_usd) AS cost_usd, sum(step_count)::bigint AS steps FROM projection.spending
GROUP BY project_id, kind ORDER BY project_id, kind LIMIT {MAX_KINDS}
"""
_LEASES: Final = f"""
SELECT project_id, sum(leases)::bigint AS leases, sum(beats)::bigint AS beats, sum(lost)::bigint AS lost,
  count(*) FILTER (WHERE last_seen > ledger.now() - interval '2 minutes') AS workers
FROM projection.worker_activity GROUP BY project_id ORDER BY project_id LIMIT {MAX_KINDS}
"""
_WAITING: Final = f"""
SELECT project_id, count(*) AS waiting, coalesce(extract(epoch FROM max(waiting_for)), 0)::float8 AS oldest
FROM projection.approvals WHERE decided_at IS NULL GROUP BY project_id ORDER BY project_id LIMIT {MAX_KINDS}
"""
# By the index of claimable runs: as many probes as there are kinds, whatever the length of the queues.
_OLDEST: Final = f"""
SELECT k.project_id, k.kind, extract(epoch FROM ledger.now() - o.available_at)::float8 AS oldest
FROM (SELECT DISTINCT project_id, kind FROM ledger.kind ORDER BY project_id, kind LIMIT {MAX_KINDS}) AS k
CROSS JOIN LATERAL (
  SELECT s.available_at FROM ledger.run_state AS s
  WHERE s.project_id = k.project_id AND s.kind = k.kind AND s.available_at <= ledger.now()
  ORDER BY s.priority, s.run_id LIMIT 1
) AS o
"""
_PROJECTIONS: Final = """
SELECT p.name, p.failed_at IS NOT NULL AS failed,
  greatest((SELECT q.last_value FROM ledger.event_position AS q) - split_part(p.snapshot, '@', 2)::bigint, 0) AS behind
FROM ledger.projection AS p ORDER BY p.name
"""
_READ: Final = (
    ("run_counts", _COUNTS), ("spending", _SPENT), ("worker_activity", _LEASES), ("approvals", _WAITING),
)  # fmt: skip
_INSTALLED: Final = "SELECT to_regclass('projection.' || name) IS NOT NULL AS there, name FROM unnest($1::text[]) AS name"

Rows = Sequence[Mapping[str, Any]]


async def look(pool: Pool) -> dict[str, Rows]:
    """Read what a scrape shows; read models that are not installed are left out.

    Raises AccessDenied or DatabaseUnavailable.
    """
    installed = {
        row["name"]
        for row in await fetch(pool, _INSTALLED, [name for name, _ in _READ])
        if row["there"]
    }
    found: dict[str, Rows] = {
        name: await fetch(pool, sql) for name, sql in _READ if name in installed
    }
    found["oldest"] = await fetch(pool, _OLDEST)
    found["projections"] = await fetch(pool, _PROJECTIONS)
    return found


def families(found: Mapping[str, Rows]) -> Iterator[Any]:
    """Turn what was read into Prometheus's metric families; raises ConfigurationError without the extra."""
    try:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    except ImportError as error:
        raise ConfigurationError(
            "metrics are served with prometheus-client: install runfold[metrics]"
        ) from error
    by_state, by_kind, by_project, by_name = (
        ["project", "kind", "state"],
        ["project", "kind"],
        ["project"],
        ["projection"],
    )
    for source, kind, labels, metric, help_, column in (
        ("run_counts", GaugeMetricFamily, by_state, names.RUNS, "Runs in each state now.", "runs"),
        (
            "run_counts",
            CounterMetricFamily,
            by_state,
            names.ENTERED,
            "Times that runs came to a state.",
            "entered",
        ),
        (
            "spending",
            CounterMetricFamily,
            by_kind,
            names.COST,
            "What runs spent, in USD.",
            "cost_usd",
        ),
        (
            "spending",
            CounterMetricFamily,
            by_kind,
            names.STEPS,
            "Steps that runs recorded.",
            "steps",
        ),
        (
            "worker_activity",
            CounterMetricFamily,
            by_project,
            names.LEASES,
            "Leases that workers took.",
            "leases",
        ),
        (
            "worker_activity",
            CounterMetricFamily,
            by_project,
            names.HEARTBEATS,
            "Heartbeats that were recorded.",
            "beats",
        ),
        (
            "worker_activity",
            CounterMetricFamily,
            by_project,
            names.LEASES_LOST,
            "Leases that a reaper ended.",
            "lost",
        ),
        (
            "worker_activity",
            GaugeMetricFamily,
            by_project,
            names.WORKERS,
            "Workers seen in the last two minutes.",
            "workers",
        ),
        (
            "approvals",
            GaugeMetricFamily,
            by_project,
            names.APPROVALS,
            "Approvals that nobody has decided.",
            "waiting",
        ),
        (
            "approvals",
            GaugeMetricFamily,
            by_project,
            names.APPROVAL_AGE,
            "How long the oldest of them waits.",
            "oldest",
        ),
        (
            "oldest",
            GaugeMetricFamily,
            by_kind,
            names.CLAIMABLE_AGE,
            "How long the next claimable run has waited.",
            "oldest",
        ),
        (
            "projections",
            GaugeMetricFamily,
            by_name,
            names.BEHIND,
            "Positions between a projection and the newest event.",
            "behind",
        ),
        (
            "projections",
            GaugeMetricFamily,
            by_name,
            names.STOPPED,
            "1 for a projection that stopped at an event.",
            "failed",
        ),
    ):
        if source not in found:
            continue
        family = kind(metric, help_, labels=labels)
        for row in found[source]:
            keys = {"project": "project_id", "projection": "name"}
            family.add_metric(
                [str(row[keys.get(label, label)]) for label in labels], float(row[column])
            )
        yield family
