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
  INSERT INTO ledger.run_state (project_id, run_id, version, hash, kind, state, priority,
    attempt_count, max_attempts, worker_id, token, lease_credential, moved_position, lease_until,
    heartbeat_at, available_at, started_at, completed_at, created_at, updated_at, deadline,
    wait_until, wait_outcome, approvals, approved, cancel_requested_at, cost_usd, step_count,
    error_code, outcome_version, output_sha256, tags, key)
  SELECT event.project_id, event.run_id,
    greatest(NULL, event.version),
    coalesce(event.hash, NULL),
    coalesce(NULL, CASE WHEN true THEN event.kind END),
    coalesce(event.state, NULL),
    coalesce(NULL, CASE WHEN true THEN event.priority END),
    coalesce(CASE WHEN false THEN event.attempt END, 0),
    coalesce(NULL, CASE WHEN true THEN event.max_attempts END),
    CASE WHEN false THEN event.worker_id ELSE NULL END,
    CASE WHEN false THEN event.token ELSE NULL END,
    coalesce(CASE WHEN false THEN event.credential END, NULL),
    coalesce(CASE WHEN false THEN event.position END, NULL),
    CASE WHEN false THEN event.lease_until ELSE NULL END,
    coalesce(CASE WHEN false THEN event.recorded_at END, NULL),
    CASE WHEN true THEN event.available_at ELSE NULL END,
    coalesce(NULL, CASE WHEN false THEN event.recorded_at END),
    coalesce(CASE WHEN false THEN event.recorded_at END, NULL),
    coalesce(NULL, CASE WHEN true THEN event.recorded_at END),
    coalesce(event.recorded_at, NULL),
    coalesce(NULL, CASE WHEN true THEN event.deadline END),
    CASE WHEN false THEN event.wait_until ELSE NULL END,
    CASE WHEN false THEN event.wait_outcome ELSE NULL END,
    CASE WHEN false THEN event.approvals ELSE NULL END,
    CASE WHEN false THEN event.approved ELSE NULL END,
    coalesce(NULL, CASE WHEN false THEN event.recorded_at END),
    0 + coalesce(event.cost_usd, 0),
    0 + coalesce(event.step_count, 0),
    CASE WHEN false THEN event.error_code ELSE NULL END,
    coalesce(CASE WHEN false THEN event.version END, NULL),
    CASE WHEN false THEN event.output_sha256 ELSE NULL END,
    coalesce(NULL, CASE WHEN true THEN event.tags END),
    coalesce(NULL, CASE WHEN true THEN event.key END)
  FROM new_events AS event
  WHERE event.version = 1 AND event.type = 'run.submitted' AND event.state = 'pending';
  GET DIAGNOSTICS folded = ROW_COUNT;
  END IF;
  IF tagged > 0 THEN
  INSERT INTO ledger.run_tag (project_id, tag, kind, run_id)
  SELECT event.project_id, each.tag, event.kind, event.run_id
  FROM new_events AS event
  CROSS JOIN LATERAL (SELECT DISTINCT unnest(event.tags) AS tag) AS each
  WHERE event.version = 1;
  END IF;
  IF wanted > starts THEN
  -- The target row is found by a correlated lookup and updated by tuple id: no join order is left
  -- to choose. Whether an event is of a set of types (on_leased ...) is found once, not once for
  -- each column.
  UPDATE ledger.run_state AS run SET
    version = greatest(run.version, event.version),
    hash = coalesce(event.hash, run.hash),
    state = coalesce(event.state, run.state),
    attempt_count = coalesce(CASE WHEN event.on_counted THEN event.attempt END, run.attempt_count),
    worker_id = CASE WHEN event.on_leased THEN event.worker_id ELSE run.worker_id END,
    token = CASE WHEN event.on_leased THEN event.token ELSE run.token END,
    lease_credential = coalesce(CASE WHEN event.on_lease_acquired THEN event.credential END,
      run.lease_credential),
    moved_position = coalesce(CASE WHEN event.on_leased THEN event.position END,
      run.moved_position),
    lease_until = CASE WHEN event.on_extended THEN event.lease_until ELSE run.lease_until END,
    heartbeat_at = coalesce(CASE WHEN event.on_beaten THEN event.recorded_at END, run.heartbeat_at),
    available_at = CASE WHEN event.on_leased THEN event.available_at ELSE run.available_at END,
    started_at = coalesce(run.started_at, CASE WHEN event.on_lease_acquired THEN event.recorded_at
      END),
    completed_at = coalesce(CASE WHEN event.on_ended THEN event.recorded_at END, run.completed_at),
    updated_at = coalesce(event.recorded_at, run.updated_at),
    wait_until = CASE WHEN event.on_leased THEN event.wait_until ELSE run.wait_until END,
    wait_outcome = CASE WHEN event.on_leased THEN event.wait_outcome ELSE run.wait_outcome END,
    approvals = CASE WHEN event.on_leased THEN event.approvals ELSE run.approvals END,
    approved = CASE WHEN event.on_leased THEN event.approved ELSE run.approved END,
    cancel_requested_at = coalesce(run.cancel_requested_at, CASE WHEN event.on_cancel_requested THEN
      event.recorded_at END),
    cost_usd = run.cost_usd + coalesce(event.cost_usd, 0),
    step_count = run.step_count + coalesce(event.step_count, 0),
    error_code = CASE WHEN event.on_outcome THEN event.error_code ELSE run.error_code END,
    outcome_version = coalesce(CASE WHEN event.on_outcome THEN event.version END,
      run.outcome_version),
    output_sha256 = CASE WHEN event.on_ended THEN event.output_sha256 ELSE run.output_sha256 END
  FROM (
    SELECT fresh.approvals, fresh.approved, fresh.attempt, fresh.available_at, fresh.cost_usd,
      fresh.credential, fresh.error_code, fresh.hash, fresh.lease_until, fresh.output_sha256,
      fresh.position, fresh.recorded_at, fresh.state, fresh.step_count, fresh.token, fresh.type,
      fresh.version, fresh.wait_outcome, fresh.wait_until, fresh.worker_id, place.tid,
      fresh.type IN ('approval.expired', 'approval.granted', 'approval.lapsed', 'approval.rejected',
        'approval.requested', 'approval.signed', 'lease.acquired', 'lease.expired',
        'lease.heartbeat', 'lease.released', 'run.cancelled', 'run.completed', 'run.failed',
        'run.retried', 'run.timed_out', 'tool.completed', 'tool.failed', 'tool.requested') AS
        on_extended,
      fresh.type IN ('approval.expired', 'approval.granted', 'approval.lapsed', 'approval.rejected',
        'approval.requested', 'approval.signed', 'lease.acquired', 'lease.expired',
        'lease.released', 'run.cancelled', 'run.completed', 'run.failed', 'run.retried',
        'run.timed_out', 'tool.completed', 'tool.failed', 'tool.requested') AS on_leased,
      fresh.type IN ('approval.expired', 'approval.rejected', 'lease.expired', 'run.cancelled',
        'run.completed', 'run.failed', 'run.retried', 'run.timed_out') AS on_outcome,
      fresh.type IN ('approval.expired', 'approval.rejected', 'run.cancelled', 'run.completed',
        'run.failed', 'run.timed_out') AS on_ended,
      fresh.type = 'cancel.requested' AS on_cancel_requested,
      fresh.type = 'lease.acquired' AS on_lease_acquired,
      fresh.type IN ('lease.acquired', 'lease.expired', 'lease.released') AS on_counted,
      fresh.type IN ('lease.acquired', 'lease.heartbeat') AS on_beaten
    FROM new_events AS fresh
    CROSS JOIN LATERAL (
      SELECT found.ctid AS tid FROM ledger.run_state AS found
      WHERE found.project_id = fresh.project_id AND found.run_id = fresh.run_id OFFSET 0
    ) AS place
    WHERE fresh.version > 1 OFFSET 0
  ) AS event
  WHERE run.ctid = event.tid AND run.version = event.version - 1
    AND ledger.legal(event.type, run.state, event.state);
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
