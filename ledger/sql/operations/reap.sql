-- Repairs what died and ends what is overdue, with compensating events along legal edges only:
--   lease past its end, attempts left    lease.expired, pending again             E-RUN-001
--   the same, but nobody can have begun  lease.expired, no attempt charged        E-RUN-001
--   or others were lost with the worker
--   lease past its end, none left        run.failed; waiting for approval:         E-RUN-002
--                                        run.timed_out
--   lease past its end, cancel asked     run.cancelled
--   run past its deadline                run.timed_out; waiting for a tool:        E-RUN-003
--                                        run.failed; pending: run.cancelled
--   approval undecided at its deadline   approval.expired: cancelled or timeout    E-RUN-003
--   the same, if it may lapse            approval.lapsed, the run goes on: parked  E-RUN-003
--                                        claimable, held running under its lease
--   parked wait unanswered at its end    tool.failed, claimable: handler decides   E-RUN-003
-- A lapsed lease charges no attempt in two cases; the event says so by its `attempt`:
--   at most three times for a run: nothing was appended under the lease, not even a heartbeat, so
--   the answer to its claim may have been lost;
--   at most ten times for a run: it was the run's last attempt, and its worker lost other leases
--   with it. Any of their runs may have killed the worker; one that does so again will be alone.
-- So the leases of a dead worker are judged together: those that lapse first wait until those of
-- last attempts have lapsed as well, unless the worker was heard from since.
-- Without p_leases no lease is ended, only what a deadline or a request to cancel ends: for the
-- time after an outage, in which no worker could beat.
-- Bounded by p_limit; runs that another reaper works on are skipped, so any number of reapers may
-- run. Locks: run_state rows, SKIP LOCKED; the row is read again once it is locked, so the token
-- that was seen is the token that is closed.
CREATE OR REPLACE FUNCTION ledger.reap(
  p_project text, p_actor text, p_limit int, p_leases boolean DEFAULT true
) RETURNS TABLE (
  run_id uuid, version int, type text, from_state text, to_state text, attempt_count int,
  max_attempts int, worker_id text, error_code text
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_hashjoin = off
SET enable_mergejoin = off
SET enable_seqscan = off
SET enable_memoize = off
SET enable_bitmapscan = off
SET enable_sort = off
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
  writer CONSTANT text := ledger.credential();
  -- a variable, because an index is not searched for a volatile function
  moment timestamptz;
  seed bytea := ledger.salt_seed();
  checked boolean;
  most_unbegun CONSTANT int := 3;
  most_together CONSTANT int := 10;
  kinds text[];
  marked boolean[] := '{}';
  ends_from timestamptz[] := '{}';
  cancels_after bigint[] := '{}';
  low record;
  kind_now text;
BEGIN
  checked := ledger.check_access(p_project, '{work}',
    CASE WHEN p_actor <> 'reaper' THEN ARRAY[p_actor] END); -- the reaper is the ledger's own actor
  checked := ledger.check_given('p_actor', p_actor IS NOT NULL);
  checked := ledger.check_texts(ARRAY[p_actor], 200, true);
  IF p_limit IS NULL OR p_limit NOT BETWEEN 1 AND 10000 THEN
    RAISE EXCEPTION 'a sweep takes 1 to 10000 runs' USING ERRCODE = '22023';
  END IF;
  moment := ledger.keep_time(); -- no deadline waits for a clock that was set back
  kinds := ARRAY(SELECT DISTINCT known.kind FROM ledger.kind AS known
    WHERE known.project_id = p_project ORDER BY known.kind);
  PERFORM ledger.move_low_water(p_project, kinds, '1 second');
  FOREACH kind_now IN ARRAY kinds LOOP
    marked := marked || ledger.marks_hold(p_project, kind_now);
    SELECT ends.* INTO low FROM ledger.sweep_start(p_project, kind_now) AS ends;
    ends_from := ends_from || low.ends_from;
    cancels_after := cancels_after || low.cancels_after;
  END LOOP;
  RETURN QUERY
  -- The order is that of run_due, and sorting is off: no plan can walk all of a kind instead.
  -- Events are read by functions: ledger.nothing_begun says why.
  WITH due AS MATERIALIZED ( -- the runs that may be due, by three indexes
    (SELECT lease.run_id FROM unnest(kinds, marked) AS known (kind, marked)
      CROSS JOIN LATERAL ledger.leases(p_project, known.kind, known.marked) AS lease
      WHERE p_leases AND lease.lease_until <= moment
      LIMIT p_limit)
    UNION
    (SELECT run.run_id FROM unnest(kinds, ends_from) AS known (kind, ends_from)
      CROSS JOIN LATERAL (
        SELECT run.run_id FROM ledger.run_state AS run
        WHERE run.project_id = p_project AND run.kind = known.kind AND run.completed_at IS NULL
          AND num_nonnulls(run.deadline, run.wait_until) > 0
          AND least(run.deadline, run.wait_until) >= known.ends_from
          AND least(run.deadline, run.wait_until) <= moment
        ORDER BY least(run.deadline, run.wait_until) LIMIT p_limit
      ) AS run
      LIMIT p_limit)
    UNION
    (SELECT run.run_id FROM unnest(kinds, cancels_after) AS known (kind, cancels_after)
      CROSS JOIN LATERAL ledger.cancels(p_project, known.kind, known.cancels_after) AS run
      LIMIT p_limit)
  ), first AS MATERIALIZED ( -- in the order of the locks
    SELECT due.run_id FROM due ORDER BY due.run_id LIMIT p_limit
  ), locked AS MATERIALIZED ( -- as it is now, unless another reaper has it
    SELECT run.*, run.deadline <= run.now AS overdue,
      run.lease_until <= run.now AS past_end
    FROM first
    CROSS JOIN LATERAL (
      SELECT run.*, greatest(ledger.now(), run.updated_at) AS now FROM ledger.run_state AS run
      WHERE run.project_id = p_project AND run.run_id = first.run_id AND run.completed_at IS NULL
      FOR UPDATE SKIP LOCKED
    ) AS run
  ), workers AS MATERIALIZED ( -- of each worker with a lapsed lease, all its leases
    SELECT lease.worker_id, count(*) AS held, max(lease.heartbeat_at) AS heard_at,
      max(lease.lease_until) FILTER (WHERE lease.attempt_count >= lease.max_attempts) AS last_until
    FROM unnest(kinds, marked) AS known (kind, marked)
    CROSS JOIN LATERAL ledger.leases(p_project, known.kind, known.marked) AS lease
    WHERE lease.worker_id = ANY (
        ARRAY(SELECT locked.worker_id FROM locked WHERE locked.past_end))
      AND EXISTS (SELECT FROM locked WHERE locked.past_end)
    GROUP BY lease.worker_id
  ), weighed AS MATERIALIZED ( -- each run with what its worker held and did
    SELECT locked.*,
      locked.past_end AND (worker.is_alive OR coalesce(worker.last_until, locked.lease_until)
        <= locked.now) AS lapsed,
      locked.past_end AND NOT worker.is_alive AND worker.held > 1 AS together,
      CASE WHEN locked.past_end
        THEN ledger.nothing_begun(p_project, locked.run_id, locked.token) END AS unbegun
    FROM locked
    LEFT JOIN LATERAL (
      SELECT workers.held, workers.last_until, workers.heard_at > locked.lease_until AS is_alive
      FROM workers WHERE workers.worker_id = locked.worker_id OFFSET 0
    ) AS worker ON true
  ), forgiven AS MATERIALIZED ( -- whether the attempt is charged
    SELECT weighed.*, weighed.lapsed AND coalesce(CASE
      WHEN weighed.unbegun THEN ledger.uncharged_leases(p_project, weighed.run_id) < most_unbegun
      WHEN weighed.together AND weighed.attempt_count >= weighed.max_attempts
        AND weighed.max_attempts > 1
        THEN ledger.uncharged_leases(p_project, weighed.run_id) < most_together
      END, false) AS is_forgiven
    FROM weighed
  ), judged AS MATERIALIZED ( -- what becomes of each
    SELECT run.*,
      CASE
        WHEN run.overdue THEN
          CASE run.state WHEN 'pending' THEN 'run.cancelled' WHEN 'waiting_tool'
            THEN 'run.failed' ELSE 'run.timed_out' END
        WHEN run.wait_until <= run.now AND run.state = 'waiting_tool' THEN 'tool.failed'
        WHEN run.wait_until <= run.now AND run.wait_outcome = 'lapsed' THEN 'approval.lapsed'
        WHEN run.wait_until <= run.now THEN 'approval.expired'
        WHEN run.cancel_requested_at IS NOT NULL AND (run.token IS NULL OR run.lapsed)
          THEN 'run.cancelled'
        WHEN run.lapsed AND (run.is_forgiven
          OR run.attempt_count < run.max_attempts) THEN 'lease.expired'
        WHEN run.lapsed AND run.state = 'waiting_approval' THEN 'run.timed_out'
        WHEN run.lapsed THEN 'run.failed'
      END AS type,
      CASE
        WHEN run.overdue OR run.wait_until <= run.now THEN 'E-RUN-003'
        WHEN run.cancel_requested_at IS NOT NULL THEN NULL
        WHEN run.is_forgiven OR run.attempt_count < run.max_attempts THEN 'E-RUN-001'
        ELSE 'E-RUN-002'
      END AS code
    FROM forgiven AS run
  ), next AS MATERIALIZED ( -- the event of each
    SELECT judged.*, judged.version + 1 AS new_version,
      CASE judged.type WHEN 'lease.expired' THEN 'pending' WHEN 'approval.expired'
        THEN CASE judged.wait_outcome WHEN 'timeout' THEN 'timeout' ELSE 'cancelled' END
        WHEN 'tool.failed' THEN NULL
        WHEN 'approval.lapsed' THEN CASE WHEN judged.token IS NOT NULL THEN 'running' END
        WHEN 'run.cancelled' THEN 'cancelled' WHEN 'run.failed' THEN 'failed'
          ELSE 'timeout' END AS new_state,
      judged.type = 'approval.lapsed' AND judged.token IS NOT NULL AS keeps,
      CASE WHEN judged.type IN ('lease.expired', 'tool.failed')
          OR judged.type = 'approval.lapsed' AND judged.token IS NULL
        THEN judged.now END AS new_available_at,
      CASE WHEN judged.type = 'lease.expired' AND judged.is_forgiven
        THEN greatest(judged.attempt_count - 1, 0) END AS new_attempt,
      json_build_object('error_detail', CASE
        WHEN judged.overdue THEN format('the deadline %s UTC has passed',
          judged.deadline AT TIME ZONE 'UTC')
        WHEN judged.type = 'tool.failed' THEN format('nobody answered until %s UTC',
          judged.wait_until AT TIME ZONE 'UTC')
        WHEN judged.type IN ('approval.expired', 'approval.lapsed')
          THEN format('nobody decided until %s UTC', judged.wait_until AT TIME ZONE 'UTC')
        WHEN judged.lapsed THEN format('%s held the lease until %s UTC and sent no heartbeat',
          judged.worker_id,
          judged.lease_until AT TIME ZONE 'UTC') || CASE
            WHEN NOT judged.is_forgiven THEN ''
            WHEN judged.unbegun
              THEN '; nothing was begun under it, so no attempt is charged'
            ELSE '; other runs were lost with it, so no attempt is charged' END
        ELSE 'cancelled as requested' END)::text AS body,
      sha256(seed || uuid_send(judged.run_id)) AS salt
    FROM judged WHERE judged.type IS NOT NULL
  ), contents AS (
    INSERT INTO ledger.payload (project_id, run_id, version, salt, body)
    SELECT p_project, next.run_id, next.new_version, next.salt, next.body::json FROM next
  ), appended AS (
    INSERT INTO ledger.event (project_id, run_id, version, recorded_at, type, actor, state,
      worker_id, token, lease_until, attempt, available_at, error_code, compensates, payload_hash,
      credential, hash)
    SELECT p_project, hashed.run_id, hashed.new_version, hashed.now, hashed.type, p_actor,
      hashed.new_state, hashed.kept_worker, hashed.kept_token, hashed.kept_until,
      hashed.new_attempt, hashed.new_available_at, hashed.code, hashed.closed_token,
      hashed.payload_hash, writer,
      ledger.event_hash(hashed.hash, p_project, hashed.run_id, hashed.new_version, hashed.now,
        hashed.type, p_actor, state => hashed.new_state, worker_id => hashed.kept_worker,
        token => hashed.kept_token, lease_until => hashed.kept_until,
        attempt => hashed.new_attempt, available_at => hashed.new_available_at,
        error_code => hashed.code, compensates => hashed.closed_token,
        payload_hash => hashed.payload_hash, credential => writer)
    FROM (SELECT next.*, ledger.payload_hash(next.salt, next.body) AS payload_hash,
        CASE WHEN next.keeps THEN next.worker_id END AS kept_worker,
        CASE WHEN next.keeps THEN next.token END AS kept_token,
        CASE WHEN next.keeps THEN next.lease_until END AS kept_until,
        CASE WHEN NOT next.keeps THEN next.token END AS closed_token
      FROM next) AS hashed
  )
  SELECT next.run_id, next.new_version, next.type, next.state, next.new_state,
    coalesce(next.new_attempt, next.attempt_count), next.max_attempts, next.worker_id, next.code
  FROM next;
END $$;
