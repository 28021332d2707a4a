-- Compiled from projections/state/run_state.py by `make sql`; do not edit.
-- Folds histories of a range of runs, whole or up to a version or an instant, into run_state.
CREATE OR REPLACE FUNCTION ledger.rebuild_run_state(
  p_project text, p_from uuid, p_to uuid,
  p_version int DEFAULT NULL, p_time timestamptz DEFAULT NULL
) RETURNS SETOF ledger.run_state
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
  SELECT e.project_id, e.run_id,
    max(e.version) AS version,
    (array_agg(e.hash ORDER BY e.version DESC) FILTER (WHERE e.hash IS NOT NULL))[1] AS hash,
    max(e.kind) FILTER (WHERE e.type = 'run.submitted') AS kind,
    (array_agg(e.state ORDER BY e.version DESC) FILTER (WHERE e.state IS NOT NULL))[1] AS state,
    max(e.priority) FILTER (WHERE e.type = 'run.submitted') AS priority,
    coalesce((array_agg(e.attempt ORDER BY e.version DESC) FILTER (WHERE e.type IN ('lease.acquired', 'lease.expired',
      'lease.released') AND e.attempt IS NOT NULL))[1], 0) AS attempt_count,
    max(e.max_attempts) FILTER (WHERE e.type = 'run.submitted') AS max_attempts,
    (array_agg(e.worker_id ORDER BY e.version DESC) FILTER (WHERE e.type IN ('approval.expired', 'approval.granted',
      'approval.lapsed', 'approval.rejected', 'approval.requested', 'approval.signed', 'lease.acquired',
      'lease.expired', 'lease.released', 'run.cancelled', 'run.completed', 'run.failed', 'run.retried',
      'run.timed_out', 'tool.completed', 'tool.failed', 'tool.requested')))[1] AS worker_id,
    (array_agg(e.token ORDER BY e.version DESC) FILTER (WHERE e.type IN ('approval.expired', 'approval.granted',
      'approval.lapsed', 'approval.rejected', 'approval.requested', 'approval.signed', 'lease.acquired',
      'lease.expired', 'lease.released', 'run.cancelled', 'run.completed', 'run.failed', 'run.retried',
      'run.timed_out', 'tool.completed', 'tool.failed', 'tool.requested')))[1] AS token,
    (array_agg(e.credential ORDER BY e.version DESC) FILTER (WHERE e.type = 'lease.acquired' AND e.credential IS NOT
      NULL))[1] AS lease_credential,
    (array_agg(e.position ORDER BY e.version DESC) FILTER (WHERE e.type = 'lease.acquired' AND e.position IS NOT
      NULL))[1] AS lease_position,
    (array_agg(e.lease_until ORDER BY e.version DESC) FILTER (WHERE e.type IN ('approval.expired', 'approval.granted',
      'approval.lapsed', 'approval.rejected', 'approval.requested', 'approval.signed', 'lease.acquired',
      'lease.expired', 'lease.heartbeat', 'lease.released', 'run.cancelled', 'run.completed', 'run.failed',
      'run.retried', 'run.timed_out', 'tool.completed', 'tool.failed', 'tool.requested')))[1] AS lease_until,
    (array_agg(e.recorded_at ORDER BY e.version DESC) FILTER (WHERE e.type IN ('lease.acquired', 'lease.heartbeat') AND
      e.recorded_at IS NOT NULL))[1] AS heartbeat_at,
    (array_agg(e.available_at ORDER BY e.version DESC) FILTER (WHERE e.type IN ('approval.expired', 'approval.granted',
      'approval.lapsed', 'approval.rejected', 'approval.requested', 'approval.signed', 'lease.acquired',
      'lease.expired', 'lease.released', 'run.cancelled', 'run.completed', 'run.failed', 'run.retried',
      'run.submitted', 'run.timed_out', 'tool.completed', 'tool.failed', 'tool.requested')))[1] AS available_at,
    (array_agg(e.recorded_at ORDER BY e.version ASC) FILTER (WHERE e.type = 'lease.acquired' AND e.recorded_at IS NOT
      NULL))[1] AS started_at,
    (array_agg(e.recorded_at ORDER BY e.version DESC) FILTER (WHERE e.type IN ('approval.expired', 'approval.rejected',
      'run.cancelled', 'run.completed', 'run.failed', 'run.timed_out') AND e.recorded_at IS NOT NULL))[1] AS
      completed_at,
    max(e.recorded_at) FILTER (WHERE e.type = 'run.submitted') AS created_at,
    (array_agg(e.recorded_at ORDER BY e.version DESC) FILTER (WHERE e.recorded_at IS NOT NULL))[1] AS updated_at,
    max(e.deadline) FILTER (WHERE e.type = 'run.submitted') AS deadline,
    (array_agg(e.wait_until ORDER BY e.version DESC) FILTER (WHERE e.type IN ('approval.expired', 'approval.granted',
      'approval.lapsed', 'approval.rejected', 'approval.requested', 'approval.signed', 'lease.acquired',
      'lease.expired', 'lease.released', 'run.cancelled', 'run.completed', 'run.failed', 'run.retried',
      'run.timed_out', 'tool.completed', 'tool.failed', 'tool.requested')))[1] AS wait_until,
    (array_agg(e.wait_outcome ORDER BY e.version DESC) FILTER (WHERE e.type IN ('approval.expired', 'approval.granted',
      'approval.lapsed', 'approval.rejected', 'approval.requested', 'approval.signed', 'lease.acquired',
      'lease.expired', 'lease.released', 'run.cancelled', 'run.completed', 'run.failed', 'run.retried',
      'run.timed_out', 'tool.completed', 'tool.failed', 'tool.requested')))[1] AS wait_outcome,
    (array_agg(e.approvals ORDER BY e.version DESC) FILTER (WHERE e.type IN ('approval.expired', 'approval.granted',
      'approval.lapsed', 'approval.rejected', 'approval.requested', 'approval.signed', 'lease.acquired',
      'lease.expired', 'lease.released', 'run.cancelled', 'run.completed', 'run.failed', 'run.retried',
      'run.timed_out', 'tool.completed', 'tool.failed', 'tool.requested')))[1] AS approvals,
    (array_agg(e.approved ORDER BY e.version DESC) FILTER (WHERE e.type IN ('approval.expired', 'approval.granted',
      'approval.lapsed', 'approval.rejected', 'approval.requested', 'approval.signed', 'lease.acquired',
      'lease.expired', 'lease.released', 'run.cancelled', 'run.completed', 'run.failed', 'run.retried',
      'run.timed_out', 'tool.completed', 'tool.failed', 'tool.requested')))[1] AS approved,
    (array_agg(e.recorded_at ORDER BY e.version ASC) FILTER (WHERE e.type = 'cancel.requested' AND e.recorded_at IS NOT
      NULL))[1] AS cancel_requested_at,
    coalesce(sum(e.cost_usd), 0) AS cost_usd,
    (coalesce(sum(e.step_count), 0))::int AS step_count,
    (array_agg(e.error_code ORDER BY e.version DESC) FILTER (WHERE e.type IN ('approval.expired', 'approval.rejected',
      'lease.expired', 'run.cancelled', 'run.completed', 'run.failed', 'run.retried', 'run.timed_out')))[1] AS
      error_code,
    (array_agg(e.version ORDER BY e.version DESC) FILTER (WHERE e.type IN ('approval.expired', 'approval.rejected',
      'lease.expired', 'run.cancelled', 'run.completed', 'run.failed', 'run.retried', 'run.timed_out') AND e.version IS
      NOT NULL))[1] AS outcome_version,
    (array_agg(e.output_sha256 ORDER BY e.version DESC) FILTER (WHERE e.type IN ('approval.expired',
      'approval.rejected', 'run.cancelled', 'run.completed', 'run.failed', 'run.timed_out')))[1] AS output_sha256,
    max(e.tags) FILTER (WHERE e.type = 'run.submitted') AS tags,
    max(e.key) FILTER (WHERE e.type = 'run.submitted') AS key
  FROM ledger.event AS e
  WHERE e.project_id = p_project AND e.run_id BETWEEN p_from AND p_to
    AND (p_version IS NULL OR e.version <= p_version)
    AND (p_time IS NULL OR e.recorded_at <= p_time)
  GROUP BY e.project_id, e.run_id
$$;
