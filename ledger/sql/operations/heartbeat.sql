-- Appends lease.heartbeat for every lease that is still current and moves its end; one statement for all runs of a worker.
-- A beat after the lease's end is accepted while nobody else took the run, and says by how many milliseconds it was late.
-- What is not returned is not held any more. Locks: run_state rows, in run_id order.
CREATE OR REPLACE FUNCTION ledger.heartbeat(p_project text, p_runs uuid[], p_tokens int[], p_ttls interval[],
  p_workers text[] DEFAULT NULL)
RETURNS TABLE (run_id uuid, lease_until timestamptz, late_ms int, cancel_requested boolean)
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
BEGIN
  IF EXISTS (SELECT FROM unnest(p_ttls) AS u (given) WHERE u.given NOT BETWEEN '0' AND '3650 days') THEN
    RAISE EXCEPTION 'a lease must end, within ten years' USING ERRCODE = '22023';
  END IF;
  RETURN QUERY
  WITH c AS MATERIALIZED (
    SELECT DISTINCT ON (u.run_id) u.* FROM unnest(p_runs, p_tokens, p_ttls, p_workers)
      AS u (run_id, token, ttl, worker) ORDER BY u.run_id
  ), g AS MATERIALIZED (
    SELECT c.run_id, c.token, c.ttl, s.* FROM c
    CROSS JOIN LATERAL (
      SELECT s.version, s.hash, s.updated_at, s.worker_id, s.lease_until AS was_until, s.cancel_requested_at
      FROM ledger.run_state AS s
      WHERE s.project_id = p_project AND s.run_id = c.run_id
        -- Not an equality, which the index of leased runs would be searched for: many runs have the same token.
        AND c.token IS NOT NULL AND s.token IS NOT DISTINCT FROM c.token
        AND (c.worker IS NULL OR s.worker_id = c.worker)
      FOR UPDATE
    ) AS s
  ), n AS MATERIALIZED (
    SELECT t.*, greatest(t.was_until, t.recorded_at + t.ttl) AS lease_until,
      CASE WHEN t.recorded_at > t.was_until
        THEN least(floor(extract(epoch FROM t.recorded_at - t.was_until) * 1000), 2147483647)::int END AS late_ms
    FROM (SELECT g.*, greatest(ledger.now(), g.updated_at) AS recorded_at FROM g) AS t
  ), e AS (
    INSERT INTO ledger.event (project_id, run_id, version, recorded_at, type, actor, token, lease_until, late_ms, hash)
    SELECT p_project, n.run_id, n.version + 1, n.recorded_at, 'lease.heartbeat', n.worker_id, n.token, n.lease_until, n.late_ms,
      ledger.event_hash(n.hash, p_project, n.run_id, n.version + 1, n.recorded_at, 'lease.heartbeat', n.worker_id,
        token => n.token, lease_until => n.lease_until, late_ms => n.late_ms)
    FROM n
  )
  SELECT n.run_id, n.lease_until, n.late_ms, n.cancel_requested_at IS NOT NULL FROM n;
END $$;
