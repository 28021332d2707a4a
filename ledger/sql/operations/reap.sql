-- Repairs what died and ends what is overdue, with compensating events along legal edges only:
--   lease past its end, attempts left    lease.expired, pending again            E-RUN-001
--   lease past its end, none left        run.failed                              E-RUN-002 (waiting for approval: run.timed_out)
--   lease past its end, cancel asked     run.cancelled
--   run past its deadline                run.timed_out, waiting for a tool run.failed, pending run.cancelled   E-RUN-003
--   approval undecided at its deadline   approval.expired: cancelled or timeout  E-RUN-003
--   parked wait unanswered at its end    tool.failed, claimable, decides itself  E-RUN-003
-- Bounded by p_limit; what another reaper works on is skipped, so any number of them may run.
-- Locks: run_state rows, SKIP LOCKED; the token seen is the token closed because the row is locked and looked at again.
CREATE OR REPLACE FUNCTION ledger.reap(p_project text, p_actor text, p_limit int)
RETURNS TABLE (
  run_id uuid, version int, type text, from_state text, to_state text, attempt_count int, max_attempts int, worker_id text,
  error_code text
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_hashjoin = off
SET enable_mergejoin = off
SET enable_seqscan = off
SET enable_memoize = off
SET enable_sort = off
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
  moment timestamptz := ledger.now(); -- a variable, because an index is not searched for a volatile function
  seed bytea := uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()); -- secret, forgotten: salts follow from it
BEGIN
  IF p_limit IS NULL OR p_limit NOT BETWEEN 1 AND 10000 THEN
    RAISE EXCEPTION 'a sweep is of 1 to 10000 runs' USING ERRCODE = '22023';
  END IF;
  RETURN QUERY
  -- The orders are those of run_leased and run_due, and sorting is off: no plan can walk the whole table instead.
  WITH due AS MATERIALIZED (
    (SELECT s.run_id FROM ledger.run_state AS s
      WHERE s.project_id = p_project AND s.token > 0 AND s.lease_until <= moment
      ORDER BY s.token LIMIT p_limit)
    UNION
    (SELECT s.run_id FROM ledger.run_state AS s
      WHERE s.project_id = p_project AND s.completed_at IS NULL
        AND num_nonnulls(s.deadline, s.wait_until, s.cancel_requested_at) > 0
        AND least(s.deadline, s.wait_until, CASE WHEN s.token IS NULL THEN s.cancel_requested_at END) <= moment
      ORDER BY least(s.deadline, s.wait_until, CASE WHEN s.token IS NULL THEN s.cancel_requested_at END) LIMIT p_limit)
  ), first AS MATERIALIZED (
    SELECT due.run_id FROM due ORDER BY due.run_id LIMIT p_limit
  ), g AS MATERIALIZED (
    SELECT s.*, s.deadline <= s.now AS overdue, s.lease_until <= s.now AS lapsed
    FROM first
    CROSS JOIN LATERAL (
      SELECT s.*, greatest(ledger.now(), s.updated_at) AS now FROM ledger.run_state AS s
      WHERE s.project_id = p_project AND s.run_id = first.run_id AND s.completed_at IS NULL
      FOR UPDATE SKIP LOCKED
    ) AS s
  ), d AS MATERIALIZED (
    SELECT g.*,
      CASE
        WHEN g.overdue THEN
          CASE g.state WHEN 'pending' THEN 'run.cancelled' WHEN 'waiting_tool' THEN 'run.failed' ELSE 'run.timed_out' END
        WHEN g.wait_until <= g.now AND g.state = 'waiting_tool' THEN 'tool.failed'
        WHEN g.wait_until <= g.now THEN 'approval.expired'
        WHEN g.cancel_requested_at IS NOT NULL AND (g.token IS NULL OR g.lapsed) THEN 'run.cancelled'
        WHEN g.lapsed AND g.attempt_count < g.max_attempts THEN 'lease.expired'
        WHEN g.lapsed AND g.state = 'waiting_approval' THEN 'run.timed_out'
        WHEN g.lapsed THEN 'run.failed'
      END AS type,
      CASE
        WHEN g.overdue OR g.wait_until <= g.now THEN 'E-RUN-003'
        WHEN g.cancel_requested_at IS NOT NULL THEN NULL
        WHEN g.attempt_count < g.max_attempts THEN 'E-RUN-001'
        ELSE 'E-RUN-002'
      END AS code
    FROM g
  ), n AS MATERIALIZED (
    SELECT d.*, d.version + 1 AS next,
      CASE d.type WHEN 'lease.expired' THEN 'pending' WHEN 'approval.expired' THEN CASE d.wait_outcome WHEN 'timeout' THEN 'timeout' ELSE 'cancelled' END
        WHEN 'tool.failed' THEN NULL
        WHEN 'run.cancelled' THEN 'cancelled' WHEN 'run.failed' THEN 'failed' ELSE 'timeout' END AS new_state,
      CASE WHEN d.type IN ('lease.expired', 'tool.failed') THEN d.now END AS new_available_at,
      json_build_object('error_detail', CASE
        WHEN d.overdue THEN format('the deadline %s UTC has passed', d.deadline AT TIME ZONE 'UTC')
        WHEN d.type = 'tool.failed' THEN format('nobody answered until %s UTC', d.wait_until AT TIME ZONE 'UTC')
        WHEN d.type = 'approval.expired' THEN format('nobody decided until %s UTC', d.wait_until AT TIME ZONE 'UTC')
        WHEN d.lapsed THEN format('%s held the lease until %s UTC and sent no heartbeat', d.worker_id,
          d.lease_until AT TIME ZONE 'UTC')
        ELSE 'cancelled as requested' END)::text AS body,
      sha256(seed || uuid_send(d.run_id)) AS salt
    FROM d WHERE d.type IS NOT NULL
  ), p AS (
    INSERT INTO ledger.payload (project_id, run_id, version, salt, body)
    SELECT p_project, n.run_id, n.next, n.salt, n.body::json FROM n
  ), e AS (
    INSERT INTO ledger.event (project_id, run_id, version, recorded_at, type, actor, state, available_at, error_code,
      compensates, payload_hash, hash)
    SELECT p_project, h.run_id, h.next, h.now, h.type, p_actor, h.new_state, h.new_available_at, h.code, h.token, h.payload_hash,
      ledger.event_hash(h.hash, p_project, h.run_id, h.next, h.now, h.type, p_actor, state => h.new_state,
        available_at => h.new_available_at, error_code => h.code, compensates => h.token, payload_hash => h.payload_hash)
    FROM (SELECT n.*, ledger.payload_hash(n.salt, n.body) AS payload_hash FROM n) AS h
  )
  SELECT n.run_id, n.next, n.type, n.state, n.new_state, n.attempt_count, n.max_attempts, n.worker_id, n.code FROM n;
END $$;
