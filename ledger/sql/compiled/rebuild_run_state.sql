-- Compiled from projections/state/run_state.py by `make sql`; do not edit.
-- Folds histories of a range of runs, whole or up to a version or an instant, into run_state.
CREATE OR REPLACE FUNCTION ledger.rebuild_run_state(
  p_project text, p_from uuid, p_to uuid,
  p_version int DEFAULT NULL, p_time timestamptz DEFAULT NULL
) RETURNS SETOF ledger.run_state
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
  SELECT event.project_id, event.run_id,
    max(event.version) AS version,
    (array_agg(event.hash ORDER BY event.version DESC) FILTER (WHERE event.hash IS NOT NULL))[1] AS
      hash,
    max(event.kind) FILTER (WHERE event.type = 'run.submitted') AS kind,
    (array_agg(event.state ORDER BY event.version DESC) FILTER (WHERE event.state IS NOT NULL))[1]
      AS state,
    max(event.priority) FILTER (WHERE event.type = 'run.submitted') AS priority,
    coalesce((array_agg(event.attempt ORDER BY event.version DESC) FILTER (WHERE event.type IN
      ('lease.acquired', 'lease.expired', 'lease.released') AND event.attempt IS NOT NULL))[1], 0)
      AS attempt_count,
    max(event.max_attempts) FILTER (WHERE event.type = 'run.submitted') AS max_attempts,
    (array_agg(event.worker_id ORDER BY event.version DESC) FILTER (WHERE event.type IN
      ('approval.expired', 'approval.granted', 'approval.lapsed', 'approval.rejected',
      'approval.requested', 'approval.signed', 'lease.acquired', 'lease.expired',
      'lease.released', 'run.cancelled', 'run.completed', 'run.failed', 'run.retried',
      'run.timed_out', 'tool.completed', 'tool.failed', 'tool.requested')))[1] AS worker_id,
    (array_agg(event.token ORDER BY event.version DESC) FILTER (WHERE event.type IN
      ('approval.expired', 'approval.granted', 'approval.lapsed', 'approval.rejected',
      'approval.requested', 'approval.signed', 'lease.acquired', 'lease.expired',
      'lease.released', 'run.cancelled', 'run.completed', 'run.failed', 'run.retried',
      'run.timed_out', 'tool.completed', 'tool.failed', 'tool.requested')))[1] AS token,
    (array_agg(event.credential ORDER BY event.version DESC) FILTER (WHERE event.type =
      'lease.acquired' AND event.credential IS NOT NULL))[1] AS lease_credential,
    (array_agg(event.position ORDER BY event.version DESC) FILTER (WHERE event.type IN
      ('approval.expired', 'approval.granted', 'approval.lapsed', 'approval.rejected',
      'approval.requested', 'approval.signed', 'lease.acquired', 'lease.expired',
      'lease.released', 'run.cancelled', 'run.completed', 'run.failed', 'run.retried',
      'run.timed_out', 'tool.completed', 'tool.failed', 'tool.requested') AND event.position
      IS NOT NULL))[1] AS moved_position,
    (array_agg(event.lease_until ORDER BY event.version DESC) FILTER (WHERE event.type IN
      ('approval.expired', 'approval.granted', 'approval.lapsed', 'approval.rejected',
      'approval.requested', 'approval.signed', 'lease.acquired', 'lease.expired',
      'lease.heartbeat', 'lease.released', 'run.cancelled', 'run.completed', 'run.failed',
      'run.retried', 'run.timed_out', 'tool.completed', 'tool.failed', 'tool.requested')))[1]
      AS lease_until,
    (array_agg(event.recorded_at ORDER BY event.version DESC) FILTER (WHERE event.type IN
      ('lease.acquired', 'lease.heartbeat') AND event.recorded_at IS NOT NULL))[1] AS heartbeat_at,
    (array_agg(event.available_at ORDER BY event.version DESC) FILTER (WHERE event.type IN
      ('approval.expired', 'approval.granted', 'approval.lapsed', 'approval.rejected',
      'approval.requested', 'approval.signed', 'lease.acquired', 'lease.expired',
      'lease.released', 'run.cancelled', 'run.completed', 'run.failed', 'run.retried',
      'run.submitted', 'run.timed_out', 'tool.completed', 'tool.failed',
      'tool.requested')))[1] AS available_at,
    (array_agg(event.recorded_at ORDER BY event.version ASC) FILTER (WHERE event.type =
      'lease.acquired' AND event.recorded_at IS NOT NULL))[1] AS started_at,
    (array_agg(event.recorded_at ORDER BY event.version DESC) FILTER (WHERE event.type IN
      ('approval.expired', 'approval.rejected', 'run.cancelled', 'run.completed', 'run.failed',
      'run.timed_out') AND event.recorded_at IS NOT NULL))[1] AS completed_at,
    max(event.recorded_at) FILTER (WHERE event.type = 'run.submitted') AS created_at,
    (array_agg(event.recorded_at ORDER BY event.version DESC) FILTER (WHERE event.recorded_at IS NOT
      NULL))[1] AS updated_at,
    max(event.deadline) FILTER (WHERE event.type = 'run.submitted') AS deadline,
    (array_agg(event.wait_until ORDER BY event.version DESC) FILTER (WHERE event.type IN
      ('approval.expired', 'approval.granted', 'approval.lapsed', 'approval.rejected',
      'approval.requested', 'approval.signed', 'lease.acquired', 'lease.expired',
      'lease.released', 'run.cancelled', 'run.completed', 'run.failed', 'run.retried',
      'run.timed_out', 'tool.completed', 'tool.failed', 'tool.requested')))[1] AS wait_until,
    (array_agg(event.wait_outcome ORDER BY event.version DESC) FILTER (WHERE event.type IN
      ('approval.expired', 'approval.granted', 'approval.lapsed', 'approval.rejected',
      'approval.requested', 'approval.signed', 'lease.acquired', 'lease.expired',
      'lease.released', 'run.cancelled', 'run.completed', 'run.failed', 'run.retried',
      'run.timed_out', 'tool.completed', 'tool.failed', 'tool.requested')))[1] AS
      wait_outcome,
    (array_agg(event.approvals ORDER BY event.version DESC) FILTER (WHERE event.type IN
      ('approval.expired', 'approval.granted', 'approval.lapsed', 'approval.rejected',
      'approval.requested', 'approval.signed', 'lease.acquired', 'lease.expired',
      'lease.released', 'run.cancelled', 'run.completed', 'run.failed', 'run.retried',
      'run.timed_out', 'tool.completed', 'tool.failed', 'tool.requested')))[1] AS approvals,
    (array_agg(event.approved ORDER BY event.version DESC) FILTER (WHERE event.type IN
      ('approval.expired', 'approval.granted', 'approval.lapsed', 'approval.rejected',
      'approval.requested', 'approval.signed', 'lease.acquired', 'lease.expired',
      'lease.released', 'run.cancelled', 'run.completed', 'run.failed', 'run.retried',
      'run.timed_out', 'tool.completed', 'tool.failed', 'tool.requested')))[1] AS approved,
    (array_agg(event.recorded_at ORDER BY event.version ASC) FILTER (WHERE event.type =
      'cancel.requested' AND event.recorded_at IS NOT NULL))[1] AS cancel_requested_at,
    coalesce(sum(event.cost_usd), 0) AS cost_usd,
    (coalesce(sum(event.step_count), 0))::int AS step_count,
    (array_agg(event.error_code ORDER BY event.version DESC) FILTER (WHERE event.type IN
      ('approval.expired', 'approval.rejected', 'lease.expired', 'run.cancelled', 'run.completed',
      'run.failed', 'run.retried', 'run.timed_out')))[1] AS error_code,
    (array_agg(event.version ORDER BY event.version DESC) FILTER (WHERE event.type IN
      ('approval.expired', 'approval.rejected', 'lease.expired', 'run.cancelled', 'run.completed',
      'run.failed', 'run.retried', 'run.timed_out') AND event.version IS NOT NULL))[1] AS
      outcome_version,
    (array_agg(event.output_sha256 ORDER BY event.version DESC) FILTER (WHERE event.type IN
      ('approval.expired', 'approval.rejected', 'run.cancelled', 'run.completed', 'run.failed',
      'run.timed_out')))[1] AS output_sha256,
    max(event.tags) FILTER (WHERE event.type = 'run.submitted') AS tags,
    max(event.key) FILTER (WHERE event.type = 'run.submitted') AS key
  FROM ledger.event AS event
  WHERE event.project_id = p_project AND event.run_id BETWEEN p_from AND p_to
    AND (p_version IS NULL OR event.version <= p_version)
    AND (p_time IS NULL OR event.recorded_at <= p_time)
  GROUP BY event.project_id, event.run_id
$$;
