-- Compiled from projections/state/run_state.py by `make sql`; do not edit.
-- Folds the events of one INSERT into run_state and refuses what the state machine forbids.
-- Every event is folded exactly once or the statement fails: an event that is in the table is a
-- legal event that has been folded.
-- Locks: the run_state rows of the events; the operations hold them already, taken in run_id order.
CREATE OR REPLACE FUNCTION ledger.fold_run_state() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_hashjoin = off
SET enable_mergejoin = off
SET enable_seqscan = off
SET enable_memoize = off
SET jit = off
AS $$
DECLARE
  wanted bigint;
  starts bigint;
  tagged bigint;
  folded bigint := 0;
  updated bigint := 0;
BEGIN
  SELECT count(*), count(*) FILTER (WHERE version = 1),
    count(*) FILTER (WHERE version = 1 AND tags <> '{}') INTO wanted, starts, tagged
  FROM new_events;
  IF starts > 0 THEN
  INSERT INTO ledger.run_state (project_id, run_id, version, hash, kind, state, priority, attempt_count, max_attempts,
    worker_id, token, lease_credential, lease_position, lease_until, heartbeat_at, available_at, started_at,
    completed_at, created_at, updated_at, deadline, wait_until, wait_outcome, approvals, approved,
    cancel_requested_at, cost_usd, step_count, error_code, outcome_version, output_sha256, tags, key)
  SELECT e.project_id, e.run_id,
    greatest(NULL, e.version),
    coalesce(e.hash, NULL),
    coalesce(NULL, CASE WHEN e.type = 'run.submitted' THEN e.kind END),
    coalesce(e.state, NULL),
    coalesce(NULL, CASE WHEN e.type = 'run.submitted' THEN e.priority END),
    coalesce(CASE WHEN e.type IN ('lease.acquired', 'lease.expired', 'lease.released') THEN e.attempt END, 0),
    coalesce(NULL, CASE WHEN e.type = 'run.submitted' THEN e.max_attempts END),
    CASE WHEN e.type IN ('approval.expired', 'approval.granted', 'approval.lapsed', 'approval.rejected',
      'approval.requested', 'approval.signed', 'lease.acquired', 'lease.expired', 'lease.released', 'run.cancelled',
      'run.completed', 'run.failed', 'run.retried', 'run.timed_out', 'tool.completed', 'tool.failed',
      'tool.requested') THEN e.worker_id ELSE NULL END,
    CASE WHEN e.type IN ('approval.expired', 'approval.granted', 'approval.lapsed', 'approval.rejected',
      'approval.requested', 'approval.signed', 'lease.acquired', 'lease.expired', 'lease.released', 'run.cancelled',
      'run.completed', 'run.failed', 'run.retried', 'run.timed_out', 'tool.completed', 'tool.failed',
      'tool.requested') THEN e.token ELSE NULL END,
    coalesce(CASE WHEN e.type = 'lease.acquired' THEN e.credential END, NULL),
    coalesce(CASE WHEN e.type = 'lease.acquired' THEN e.position END, NULL),
    CASE WHEN e.type IN ('approval.expired', 'approval.granted', 'approval.lapsed', 'approval.rejected',
      'approval.requested', 'approval.signed', 'lease.acquired', 'lease.expired', 'lease.heartbeat', 'lease.released',
      'run.cancelled', 'run.completed', 'run.failed', 'run.retried', 'run.timed_out', 'tool.completed', 'tool.failed',
      'tool.requested') THEN e.lease_until ELSE NULL END,
    coalesce(CASE WHEN e.type IN ('lease.acquired', 'lease.heartbeat') THEN e.recorded_at END, NULL),
    CASE WHEN e.type IN ('approval.expired', 'approval.granted', 'approval.lapsed', 'approval.rejected',
      'approval.requested', 'approval.signed', 'lease.acquired', 'lease.expired', 'lease.released', 'run.cancelled',
      'run.completed', 'run.failed', 'run.retried', 'run.submitted', 'run.timed_out', 'tool.completed', 'tool.failed',
      'tool.requested') THEN e.available_at ELSE NULL END,
    coalesce(NULL, CASE WHEN e.type = 'lease.acquired' THEN e.recorded_at END),
    coalesce(CASE WHEN e.type IN ('approval.expired', 'approval.rejected', 'run.cancelled', 'run.completed',
      'run.failed', 'run.timed_out') THEN e.recorded_at END, NULL),
    coalesce(NULL, CASE WHEN e.type = 'run.submitted' THEN e.recorded_at END),
    coalesce(e.recorded_at, NULL),
    coalesce(NULL, CASE WHEN e.type = 'run.submitted' THEN e.deadline END),
    CASE WHEN e.type IN ('approval.expired', 'approval.granted', 'approval.lapsed', 'approval.rejected',
      'approval.requested', 'approval.signed', 'lease.acquired', 'lease.expired', 'lease.released', 'run.cancelled',
      'run.completed', 'run.failed', 'run.retried', 'run.timed_out', 'tool.completed', 'tool.failed',
      'tool.requested') THEN e.wait_until ELSE NULL END,
    CASE WHEN e.type IN ('approval.expired', 'approval.granted', 'approval.lapsed', 'approval.rejected',
      'approval.requested', 'approval.signed', 'lease.acquired', 'lease.expired', 'lease.released', 'run.cancelled',
      'run.completed', 'run.failed', 'run.retried', 'run.timed_out', 'tool.completed', 'tool.failed',
      'tool.requested') THEN e.wait_outcome ELSE NULL END,
    CASE WHEN e.type IN ('approval.expired', 'approval.granted', 'approval.lapsed', 'approval.rejected',
      'approval.requested', 'approval.signed', 'lease.acquired', 'lease.expired', 'lease.released', 'run.cancelled',
      'run.completed', 'run.failed', 'run.retried', 'run.timed_out', 'tool.completed', 'tool.failed',
      'tool.requested') THEN e.approvals ELSE NULL END,
    CASE WHEN e.type IN ('approval.expired', 'approval.granted', 'approval.lapsed', 'approval.rejected',
      'approval.requested', 'approval.signed', 'lease.acquired', 'lease.expired', 'lease.released', 'run.cancelled',
      'run.completed', 'run.failed', 'run.retried', 'run.timed_out', 'tool.completed', 'tool.failed',
      'tool.requested') THEN e.approved ELSE NULL END,
    coalesce(NULL, CASE WHEN e.type = 'cancel.requested' THEN e.recorded_at END),
    0 + coalesce(e.cost_usd, 0),
    0 + coalesce(e.step_count, 0),
    CASE WHEN e.type IN ('approval.expired', 'approval.rejected', 'lease.expired', 'run.cancelled', 'run.completed',
      'run.failed', 'run.retried', 'run.timed_out') THEN e.error_code ELSE NULL END,
    coalesce(CASE WHEN e.type IN ('approval.expired', 'approval.rejected', 'lease.expired', 'run.cancelled',
      'run.completed', 'run.failed', 'run.retried', 'run.timed_out') THEN e.version END, NULL),
    CASE WHEN e.type IN ('approval.expired', 'approval.rejected', 'run.cancelled', 'run.completed', 'run.failed',
      'run.timed_out') THEN e.output_sha256 ELSE NULL END,
    coalesce(NULL, CASE WHEN e.type = 'run.submitted' THEN e.tags END),
    coalesce(NULL, CASE WHEN e.type = 'run.submitted' THEN e.key END)
  FROM new_events AS e
  WHERE e.version = 1 AND e.type = 'run.submitted' AND e.state = 'pending';
  GET DIAGNOSTICS folded = ROW_COUNT;
  END IF;
  IF tagged > 0 THEN
  INSERT INTO ledger.run_tag (project_id, tag, kind, run_id)
  SELECT e.project_id, each.tag, e.kind, e.run_id
  FROM new_events AS e CROSS JOIN LATERAL (SELECT DISTINCT unnest(e.tags) AS tag) AS each
  WHERE e.version = 1;
  END IF;
  IF wanted > starts THEN
  -- The target row is found by a correlated lookup and updated by tuple id: no join order is left
  -- to choose. Whether an event is of a set of types (on_leased ...) is found once, not once for
  -- each column.
  UPDATE ledger.run_state AS s SET
    version = greatest(s.version, e.version),
    hash = coalesce(e.hash, s.hash),
    state = coalesce(e.state, s.state),
    attempt_count = coalesce(CASE WHEN e.on_counted THEN e.attempt END, s.attempt_count),
    worker_id = CASE WHEN e.on_leased THEN e.worker_id ELSE s.worker_id END,
    token = CASE WHEN e.on_leased THEN e.token ELSE s.token END,
    lease_credential = coalesce(CASE WHEN e.on_lease_acquired THEN e.credential END, s.lease_credential),
    lease_position = coalesce(CASE WHEN e.on_lease_acquired THEN e.position END, s.lease_position),
    lease_until = CASE WHEN e.on_extended THEN e.lease_until ELSE s.lease_until END,
    heartbeat_at = coalesce(CASE WHEN e.on_beaten THEN e.recorded_at END, s.heartbeat_at),
    available_at = CASE WHEN e.on_leased THEN e.available_at ELSE s.available_at END,
    started_at = coalesce(s.started_at, CASE WHEN e.on_lease_acquired THEN e.recorded_at END),
    completed_at = coalesce(CASE WHEN e.on_ended THEN e.recorded_at END, s.completed_at),
    updated_at = coalesce(e.recorded_at, s.updated_at),
    wait_until = CASE WHEN e.on_leased THEN e.wait_until ELSE s.wait_until END,
    wait_outcome = CASE WHEN e.on_leased THEN e.wait_outcome ELSE s.wait_outcome END,
    approvals = CASE WHEN e.on_leased THEN e.approvals ELSE s.approvals END,
    approved = CASE WHEN e.on_leased THEN e.approved ELSE s.approved END,
    cancel_requested_at = coalesce(s.cancel_requested_at, CASE WHEN e.on_cancel_requested THEN e.recorded_at END),
    cost_usd = s.cost_usd + coalesce(e.cost_usd, 0),
    step_count = s.step_count + coalesce(e.step_count, 0),
    error_code = CASE WHEN e.on_outcome THEN e.error_code ELSE s.error_code END,
    outcome_version = coalesce(CASE WHEN e.on_outcome THEN e.version END, s.outcome_version),
    output_sha256 = CASE WHEN e.on_ended THEN e.output_sha256 ELSE s.output_sha256 END
  FROM (
    SELECT n.approvals, n.approved, n.attempt, n.available_at, n.cost_usd, n.credential, n.error_code, n.hash,
      n.lease_until, n.output_sha256, n.position, n.recorded_at, n.state, n.step_count, n.token, n.type, n.version,
      n.wait_outcome, n.wait_until, n.worker_id, k.tid,
      n.type IN ('approval.expired', 'approval.granted', 'approval.lapsed', 'approval.rejected', 'approval.requested',
        'approval.signed', 'lease.acquired', 'lease.expired', 'lease.heartbeat', 'lease.released', 'run.cancelled',
        'run.completed', 'run.failed', 'run.retried', 'run.timed_out', 'tool.completed', 'tool.failed',
        'tool.requested') AS on_extended,
      n.type IN ('approval.expired', 'approval.granted', 'approval.lapsed', 'approval.rejected', 'approval.requested',
        'approval.signed', 'lease.acquired', 'lease.expired', 'lease.released', 'run.cancelled', 'run.completed',
        'run.failed', 'run.retried', 'run.timed_out', 'tool.completed', 'tool.failed', 'tool.requested') AS on_leased,
      n.type IN ('approval.expired', 'approval.rejected', 'lease.expired', 'run.cancelled', 'run.completed',
        'run.failed', 'run.retried', 'run.timed_out') AS on_outcome,
      n.type IN ('approval.expired', 'approval.rejected', 'run.cancelled', 'run.completed', 'run.failed',
        'run.timed_out') AS on_ended,
      n.type = 'cancel.requested' AS on_cancel_requested,
      n.type = 'lease.acquired' AS on_lease_acquired,
      n.type IN ('lease.acquired', 'lease.expired', 'lease.released') AS on_counted,
      n.type IN ('lease.acquired', 'lease.heartbeat') AS on_beaten
    FROM new_events AS n
    CROSS JOIN LATERAL (
      SELECT r.ctid AS tid FROM ledger.run_state AS r
      WHERE r.project_id = n.project_id AND r.run_id = n.run_id OFFSET 0
    ) AS k
    WHERE n.version > 1 OFFSET 0
  ) AS e
  WHERE s.ctid = e.tid AND s.version = e.version - 1 AND ledger.legal(e.type, s.state, e.state);
  GET DIAGNOSTICS updated = ROW_COUNT;
  END IF;
  IF folded + updated <> wanted THEN
    RAISE EXCEPTION 'only % of % events are legal next events of their runs; nothing was appended',
      folded + updated, wanted
      USING ERRCODE = 'RF001',
        HINT = 'Append through the functions of schema ledger, which lock and check the run first.';
  END IF;
  RETURN NULL;
END $$;
