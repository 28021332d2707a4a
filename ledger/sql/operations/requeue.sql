-- Puts leased runs back to pending at their holder's request: lease.released (the attempt is not
-- charged) or run.retried (the attempt is charged, and another must be left). A run that somebody
-- asked to cancel is cancelled instead. The event names the lease that it compensates. A run that
-- is not returned was not put back: ledger.refuse says why. Locks: run_state rows, in run_id order.
CREATE OR REPLACE FUNCTION ledger.requeue(
  p_project text, p_type text, p_runs uuid[], p_tokens int[], p_delays interval[] DEFAULT NULL,
  p_error_codes text[] DEFAULT NULL, p_bodies text[] DEFAULT NULL, p_workers text[] DEFAULT NULL
) RETURNS TABLE (run_id uuid, version int, hash bytea)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_hashjoin = off
SET enable_mergejoin = off
SET enable_seqscan = off
SET enable_memoize = off
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
  checked boolean;
  writer CONSTANT text := ledger.credential();
  seed bytea := ledger.salt_seed();
BEGIN
  checked := ledger.check_count(cardinality(p_runs));
  checked := ledger.check_workers(p_tokens, p_workers);
  checked := ledger.check_access(p_project, '{work}');
  IF EXISTS (SELECT FROM unnest(p_delays) AS given (delay)
    WHERE given.delay NOT BETWEEN '0' AND '3650 days') THEN
    RAISE EXCEPTION 'a delay is at most ten years' USING ERRCODE = '22023';
  END IF;
  checked := ledger.check_texts(p_error_codes);
  checked := ledger.check_content(p_bodies);
  IF p_type NOT IN ('lease.released', 'run.retried') THEN
    RAISE EXCEPTION 'a run is put back to pending by lease.released or run.retried, not by %',
      quote_literal(p_type) USING ERRCODE = 'RF001';
  END IF;
  RETURN QUERY
  WITH asked AS MATERIALIZED ( -- each lease once, in the order of the locks
    SELECT DISTINCT ON (given.run_id) given.*,
      CASE WHEN given.body IS NOT NULL THEN sha256(seed || uuid_send(given.run_id)) END AS salt
    FROM unnest(p_runs, p_tokens, p_delays, p_error_codes, p_bodies, p_workers)
      AS given (run_id, token, delay, error_code, body, worker)
    ORDER BY given.run_id
  ), locked AS MATERIALIZED ( -- those that are current, and may go back
    SELECT asked.*, run.version, run.hash, run.updated_at, run.attempt_count, run.worker_id,
      run.cancel_requested_at IS NOT NULL AS cancels
    FROM asked
    CROSS JOIN LATERAL (
      SELECT run.version, run.hash, run.updated_at, run.attempt_count, run.worker_id,
        run.cancel_requested_at
      FROM ledger.run_state AS run
      WHERE run.project_id = p_project AND run.run_id = asked.run_id
        -- No equality: the planner would search the index of leased runs for it, and many runs
        -- have the same token.
        AND asked.token IS NOT NULL AND run.token IS NOT DISTINCT FROM asked.token
        AND run.lease_credential = writer
        AND run.worker_id IS NOT DISTINCT FROM asked.worker
        AND (run.cancel_requested_at IS NOT NULL OR ledger.legal(p_type, run.state, 'pending'))
        AND (p_type = 'lease.released' OR run.attempt_count < run.max_attempts
          OR run.cancel_requested_at IS NOT NULL)
      FOR UPDATE
    ) AS run
  ), next AS MATERIALIZED ( -- the event of each
    SELECT timed.*, timed.version + 1 AS new_version,
      CASE WHEN timed.cancels THEN 'run.cancelled' ELSE p_type END AS type,
      CASE WHEN timed.cancels THEN 'cancelled' ELSE 'pending' END AS state,
      CASE WHEN NOT timed.cancels AND p_type = 'lease.released'
        THEN greatest(timed.attempt_count - 1, 0) END AS attempt,
      CASE WHEN NOT timed.cancels THEN timed.recorded_at + coalesce(timed.delay, '0')
        END AS available_at,
      ledger.payload_hash(timed.salt, timed.body) AS payload_hash
    FROM (SELECT locked.*, greatest(ledger.now(), locked.updated_at) AS recorded_at
      FROM locked) AS timed
  ), contents AS (
    INSERT INTO ledger.payload (project_id, run_id, version, salt, body)
    SELECT p_project, next.run_id, next.new_version, next.salt, next.body::json FROM next
      WHERE next.body IS NOT NULL
  )
  INSERT INTO ledger.event AS appended (project_id, run_id, version, recorded_at, type, actor,
    state, attempt, available_at, error_code, compensates, payload_hash, credential, hash)
  SELECT p_project, next.run_id, next.new_version, next.recorded_at, next.type, next.worker_id,
    next.state, next.attempt, next.available_at, next.error_code, next.token, next.payload_hash,
    writer,
    ledger.event_hash(next.hash, p_project, next.run_id, next.new_version, next.recorded_at,
      next.type, next.worker_id, state => next.state, attempt => next.attempt,
      available_at => next.available_at, error_code => next.error_code,
      compensates => next.token, payload_hash => next.payload_hash, credential => writer)
  FROM next
  RETURNING appended.run_id, appended.version, appended.hash;
END $$;
