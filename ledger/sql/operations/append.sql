-- Appends events that change no state: steps, notes and users' own types, at most one to a run. With a token the lease must be
-- current; steps need one. What is not returned was not kept: ledger.refuse says why.
-- Locks: run_state rows, in run_id order.
CREATE OR REPLACE FUNCTION ledger.append(
  p_project text, p_actor text, p_runs uuid[], p_tokens int[], p_types text[], p_schema_versions int[], p_names text[],
  p_error_codes text[], p_bodies text[], p_costs numeric[], p_steps int[], p_expected int[], p_keys text[],
  p_workers text[] DEFAULT NULL
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
  checked := ledger.check_texts(p_names || p_error_codes || p_keys);
  checked := ledger.check_texts(ARRAY[p_actor], 200, true);
  checked := ledger.check_types(p_types, p_schema_versions);
  checked := ledger.check_content(p_bodies);
  IF num_nonnulls(VARIADIC p_keys) > 0 THEN
    -- Locked by a statement of its own: the next one's snapshot then sees the key that whoever held the lock has used.
    PERFORM FROM (SELECT u.run_id FROM unnest(p_runs) AS u (run_id) ORDER BY u.run_id OFFSET 0) AS c
    CROSS JOIN LATERAL (
      SELECT FROM ledger.run_state AS s WHERE s.project_id = p_project AND s.run_id = c.run_id FOR UPDATE
    ) AS s;
  END IF;
  RETURN QUERY
  WITH c AS MATERIALIZED (
    SELECT u.*, CASE WHEN u.body IS NOT NULL THEN sha256(seed || uuid_send(u.run_id)) END AS salt
    FROM unnest(p_runs, p_tokens, p_types, p_schema_versions, p_names, p_error_codes, p_bodies,
      p_costs::numeric(18, 6)[], p_steps, p_expected, p_keys, p_workers)
      AS u (run_id, token, type, schema_version, name, error_code, body, cost, steps, expected, key, worker)
    -- What moves a lease or a state has a function of its own that knows its rules.
    WHERE split_part(u.type, '.', 1) NOT IN ('run', 'lease', 'tool', 'approval', 'cancel', 'write', 'payload')
    ORDER BY u.run_id
  ), g AS MATERIALIZED (
    SELECT c.*, s.version, s.hash, s.updated_at, s.worker_id FROM c
    CROSS JOIN LATERAL (
      SELECT s.version, s.hash, s.updated_at, s.worker_id
      FROM ledger.run_state AS s
      WHERE s.project_id = p_project AND s.run_id = c.run_id
        AND (c.token IS NULL AND split_part(c.type, '.', 1) <> 'step' OR s.token = c.token AND (c.worker IS NULL OR s.worker_id = c.worker))
        AND ledger.legal(c.type, s.state, NULL)
        AND (c.expected IS NULL OR s.version = c.expected)
        AND (c.key IS NULL OR NOT EXISTS (
          SELECT FROM ledger.command AS k WHERE k.project_id = p_project AND k.key = c.key OFFSET 0))
        AND s.cost_usd + coalesce(c.cost, 0) BETWEEN 0 AND 999999999999 AND s.step_count::bigint + coalesce(c.steps, 0) BETWEEN 0 AND 2147483647
      FOR UPDATE
    ) AS s
  ), n AS MATERIALIZED (
    SELECT g.*, g.version + 1 AS next, greatest(ledger.now(), g.updated_at) AS recorded_at,
      coalesce(p_actor, CASE WHEN g.token IS NOT NULL THEN g.worker_id END) AS who,
      ledger.payload_hash(g.salt, g.body) AS payload_hash
    FROM g
  ), p AS (
    INSERT INTO ledger.payload (project_id, run_id, version, salt, body)
    SELECT p_project, n.run_id, n.next, n.salt, n.body::json FROM n WHERE n.body IS NOT NULL
  )
  INSERT INTO ledger.event AS e (project_id, run_id, version, recorded_at, type, schema_version, actor, name, token, cost_usd,
    step_count, error_code, key, payload_hash, hash)
  SELECT p_project, n.run_id, n.next, n.recorded_at, n.type, n.schema_version, n.who, n.name, n.token, n.cost, n.steps,
    n.error_code, n.key, n.payload_hash,
    ledger.event_hash(n.hash, p_project, n.run_id, n.next, n.recorded_at, n.type, n.who, n.schema_version, name => n.name,
      token => n.token, cost_usd => n.cost, step_count => n.steps, error_code => n.error_code, key => n.key,
      payload_hash => n.payload_hash)
  FROM n
  RETURNING e.run_id, e.version, e.hash;

  IF num_nonnulls(VARIADIC p_keys) > 0 THEN
    INSERT INTO ledger.command (project_id, key, content_hash, run_id, version)
    SELECT p_project, u.key, ledger.command_content(u.run_id, u.type, false, u.name, u.error_code, u.body, u.cost, u.steps, NULL,
        NULL, NULL),
      u.run_id, k.version
    FROM unnest(p_runs, p_types, p_names, p_error_codes, p_bodies, p_costs, p_steps, p_keys)
      AS u (run_id, type, name, error_code, body, cost, steps, key)
    CROSS JOIN LATERAL (
      SELECT s.version FROM ledger.run_state AS s WHERE s.project_id = p_project AND s.run_id = u.run_id OFFSET 0
    ) AS k
    CROSS JOIN LATERAL (
      SELECT FROM ledger.event AS e
      WHERE e.project_id = p_project AND e.run_id = u.run_id AND e.version = k.version AND e.key = u.key OFFSET 0
    ) AS kept
    WHERE NOT EXISTS (SELECT FROM ledger.command AS c WHERE c.project_id = p_project AND c.key = u.key AND c.run_id = u.run_id OFFSET 0)
    ORDER BY u.key;
  END IF;
END $$;
