-- Puts leased runs back to pending on their holder's word: lease.released (the attempt is not charged) or run.retried (it is,
-- and one must be left). A run that somebody asked to cancel is cancelled instead. The event names the lease it compensates.
-- What is not returned was not kept: ledger.refuse says why. Locks: run_state rows, in run_id order.
CREATE OR REPLACE FUNCTION ledger.requeue(
  p_project text, p_type text, p_runs uuid[], p_tokens int[], p_delays interval[], p_error_codes text[],
  p_bodies text[], p_workers text[] DEFAULT NULL
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
  seed bytea := uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()); -- secret, forgotten: salts follow from it
BEGIN
  IF EXISTS (SELECT FROM unnest(p_delays) AS u (given) WHERE u.given NOT BETWEEN '0' AND '3650 days') THEN
    RAISE EXCEPTION 'a delay is at most ten years' USING ERRCODE = '22023';
  END IF;
  checked := ledger.check_texts(p_error_codes);
  checked := ledger.check_content(p_bodies);
  IF p_type NOT IN ('lease.released', 'run.retried') THEN
    RAISE EXCEPTION 'a run is not put back to pending by %', p_type USING ERRCODE = 'RF001';
  END IF;
  RETURN QUERY
  WITH c AS MATERIALIZED (
    SELECT DISTINCT ON (u.run_id) u.*,
      CASE WHEN u.body IS NOT NULL THEN sha256(seed || uuid_send(u.run_id)) END AS salt
    FROM unnest(p_runs, p_tokens, p_delays, p_error_codes, p_bodies, p_workers)
      AS u (run_id, token, delay, error_code, body, worker)
    ORDER BY u.run_id
  ), g AS MATERIALIZED (
    SELECT c.*, s.version, s.hash, s.updated_at, s.attempt_count, s.worker_id, s.cancel_requested_at IS NOT NULL AS cancels
    FROM c
    CROSS JOIN LATERAL (
      SELECT s.version, s.hash, s.updated_at, s.attempt_count, s.worker_id, s.cancel_requested_at
      FROM ledger.run_state AS s
      WHERE s.project_id = p_project AND s.run_id = c.run_id
        -- Not an equality, which the index of leased runs would be searched for: many runs have the same token.
        AND c.token IS NOT NULL AND s.token IS NOT DISTINCT FROM c.token
        AND (c.worker IS NULL OR s.worker_id = c.worker)
        AND (s.cancel_requested_at IS NOT NULL OR ledger.legal(p_type, s.state, 'pending'))
        AND (p_type = 'lease.released' OR s.attempt_count < s.max_attempts OR s.cancel_requested_at IS NOT NULL)
      FOR UPDATE
    ) AS s
  ), n AS MATERIALIZED (
    SELECT t.*, t.version + 1 AS next,
      CASE WHEN t.cancels THEN 'run.cancelled' ELSE p_type END AS type,
      CASE WHEN t.cancels THEN 'cancelled' ELSE 'pending' END AS state,
      CASE WHEN NOT t.cancels AND p_type = 'lease.released' THEN greatest(t.attempt_count - 1, 0) END AS attempt,
      CASE WHEN NOT t.cancels THEN t.recorded_at + coalesce(t.delay, '0') END AS available_at,
      ledger.payload_hash(t.salt, t.body) AS payload_hash
    FROM (SELECT g.*, greatest(ledger.now(), g.updated_at) AS recorded_at FROM g) AS t
  ), p AS (
    INSERT INTO ledger.payload (project_id, run_id, version, salt, body)
    SELECT p_project, n.run_id, n.next, n.salt, n.body::json FROM n WHERE n.body IS NOT NULL
  )
  INSERT INTO ledger.event AS e (project_id, run_id, version, recorded_at, type, actor, state, attempt, available_at, error_code,
    compensates, payload_hash, hash)
  SELECT p_project, n.run_id, n.next, n.recorded_at, n.type, n.worker_id, n.state, n.attempt, n.available_at, n.error_code, n.token,
    n.payload_hash,
    ledger.event_hash(n.hash, p_project, n.run_id, n.next, n.recorded_at, n.type, n.worker_id, state => n.state,
      attempt => n.attempt, available_at => n.available_at, error_code => n.error_code, compensates => n.token,
      payload_hash => n.payload_hash)
  FROM n
  RETURNING e.run_id, e.version, e.hash;
END $$;
