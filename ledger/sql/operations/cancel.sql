-- Calls runs off: a run that nobody holds is cancelled at once, for a held one cancel.requested tells its worker with the next
-- heartbeat. Asking again for a held run appends nothing and gives the run's version. Finished and unknown runs are not
-- returned. Locks: run_state rows, in run_id order.
CREATE OR REPLACE FUNCTION ledger.cancel(p_project text, p_actor text, p_runs uuid[], p_body text)
RETURNS TABLE (run_id uuid, version int)
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
  checked := ledger.check_texts(ARRAY[p_actor], 200, true);
  checked := ledger.check_content(ARRAY[p_body]);
  RETURN QUERY
  WITH c AS MATERIALIZED (
    SELECT DISTINCT u.run_id FROM unnest(p_runs) AS u (run_id) ORDER BY u.run_id
  ), g AS MATERIALIZED (
    SELECT c.run_id, s.*, s.token IS NOT NULL AS held, s.token IS NOT NULL AND s.cancel_requested_at IS NOT NULL AS repeated
    FROM c
    CROSS JOIN LATERAL (
      SELECT s.version, s.hash, s.updated_at, s.token, s.cancel_requested_at
      FROM ledger.run_state AS s
      WHERE s.project_id = p_project AND s.run_id = c.run_id AND s.completed_at IS NULL
      FOR UPDATE
    ) AS s
  ), n AS MATERIALIZED (
    SELECT t.*, t.version + 1 AS next, CASE WHEN t.held THEN 'cancel.requested' ELSE 'run.cancelled' END AS type,
      CASE WHEN NOT t.held THEN 'cancelled' END AS state, ledger.payload_hash(t.salt, p_body) AS payload_hash
    FROM (
      SELECT g.*, greatest(ledger.now(), g.updated_at) AS recorded_at,
        CASE WHEN p_body IS NOT NULL THEN sha256(seed || uuid_send(g.run_id)) END AS salt
      FROM g WHERE NOT g.repeated
    ) AS t
  ), p AS (
    INSERT INTO ledger.payload (project_id, run_id, version, salt, body)
    SELECT p_project, n.run_id, n.next, n.salt, p_body::json FROM n WHERE p_body IS NOT NULL
  ), e AS (
    INSERT INTO ledger.event AS e (project_id, run_id, version, recorded_at, type, actor, state, payload_hash, hash)
    SELECT p_project, n.run_id, n.next, n.recorded_at, n.type, p_actor, n.state, n.payload_hash,
      ledger.event_hash(n.hash, p_project, n.run_id, n.next, n.recorded_at, n.type, p_actor, state => n.state,
        payload_hash => n.payload_hash)
    FROM n
    RETURNING e.run_id, e.version
  )
  SELECT e.run_id, e.version FROM e
  UNION ALL
  SELECT g.run_id, g.version FROM g WHERE g.repeated;
END $$;
