-- Says why commands were not kept, and records the refusal of every late worker: write.refused, once for a token and an
-- operation, at most 100 to a run. Returns what the run looks like now; no row for a run that is not in the project.
-- Locks: run_state rows, in run_id order.
CREATE OR REPLACE FUNCTION ledger.refuse(p_project text, p_actor text, p_name text, p_runs uuid[], p_tokens int[],
  p_workers text[] DEFAULT NULL)
RETURNS TABLE (
  run_id uuid, given_token int, refused boolean, state text, version int, token int, worker_id text, lease_until timestamptz,
  available_at timestamptz, attempt_count int, max_attempts int, cost_usd numeric, step_count int
)
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
BEGIN
  checked := ledger.check_texts(ARRAY[p_actor, p_name]);
  -- Locked by a statement of its own: the next one's snapshot then sees a refusal that was recorded meanwhile.
  PERFORM FROM (SELECT DISTINCT u.run_id FROM unnest(p_runs) AS u (run_id) ORDER BY u.run_id OFFSET 0) AS c
  CROSS JOIN LATERAL (
    SELECT FROM ledger.run_state AS s WHERE s.project_id = p_project AND s.run_id = c.run_id FOR UPDATE
  ) AS s;
  RETURN QUERY
  WITH c AS MATERIALIZED (
    SELECT DISTINCT ON (u.run_id) u.* FROM unnest(p_runs, p_tokens, p_workers) AS u (run_id, token, worker) ORDER BY u.run_id
  ), g AS MATERIALIZED (
    SELECT c.token AS given_token, c.token IS NOT NULL AND (c.token IS DISTINCT FROM s.token OR c.worker <> s.worker_id) AS refused, s.*
    FROM c
    CROSS JOIN LATERAL (
      SELECT s.* FROM ledger.run_state AS s WHERE s.project_id = p_project AND s.run_id = c.run_id FOR UPDATE
    ) AS s
  ), n AS MATERIALIZED (
    SELECT g.*, g.version + 1 AS next, greatest(ledger.now(), g.updated_at) AS recorded_at
    FROM g
    WHERE g.refused
      -- A run whose month is archived has a finished history: there is no table left to add to.
      AND NOT EXISTS (SELECT FROM ledger.archive AS a WHERE a.detached AND g.run_id >= a.first AND g.run_id < a.beyond OFFSET 0)
      AND NOT EXISTS (
        SELECT FROM ledger.event AS e
        WHERE e.project_id = p_project AND e.run_id = g.run_id AND e.type = 'write.refused' AND e.token = g.given_token
          AND e.name = p_name OFFSET 0)
      AND (SELECT count(*) FROM ledger.event AS e
        WHERE e.project_id = p_project AND e.run_id = g.run_id AND e.type = 'write.refused') < 100
  ), e AS (
    INSERT INTO ledger.event (project_id, run_id, version, recorded_at, type, actor, name, worker_id, token, hash)
    SELECT p_project, n.run_id, n.next, n.recorded_at, 'write.refused', p_actor, p_name, p_actor, n.given_token,
      ledger.event_hash(n.hash, p_project, n.run_id, n.next, n.recorded_at, 'write.refused', p_actor, name => p_name,
        worker_id => p_actor, token => n.given_token)
    FROM n
  )
  SELECT g.run_id, g.given_token, g.refused, g.state, g.version, g.token, g.worker_id, g.lease_until, g.available_at,
    g.attempt_count, g.max_attempts, g.cost_usd, g.step_count
  FROM g;
END $$;
