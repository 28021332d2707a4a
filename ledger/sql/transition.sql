-- Moves runs along the edges of the state machine and appends what happened, in one statement for all of them.
-- Kept are the commands whose run allows them: the token is current (or none is given and none is needed), the edge is legal,
-- the expected version matches, no total falls below zero. What is not returned was not kept: ledger.refuse says why.
-- Locks: run_state rows, in run_id order.
CREATE OR REPLACE FUNCTION ledger.transition(
  p_project text, p_actor text, p_runs uuid[], p_tokens int[], p_states text[], p_parks boolean[], p_names text[],
  p_error_codes text[], p_bodies text[], p_costs numeric[], p_steps int[], p_sha256s bytea[], p_waits interval[],
  p_wait_outcomes text[], p_expected int[], p_keys text[]
) RETURNS TABLE (run_id uuid, version int, hash bytea, from_state text)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_hashjoin = off
SET enable_mergejoin = off
SET enable_seqscan = off
SET jit = off
AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
  WITH c AS MATERIALIZED (
    SELECT u.*, CASE WHEN u.body IS NOT NULL THEN uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) END AS salt
    FROM unnest(p_runs, p_tokens, p_states, p_parks, p_names, p_error_codes, p_bodies, p_costs::numeric(18, 6)[], p_steps,
      p_sha256s, p_waits, p_wait_outcomes, p_expected, p_keys)
      AS u (run_id, token, state, park, name, error_code, body, cost, steps, sha256, wait, wait_outcome, expected, key)
    ORDER BY u.run_id
  ), g AS MATERIALIZED (
    SELECT c.*, s.version, s.hash, s.updated_at, s.from_state, s.held_token, s.worker_id, s.lease_until, s.type,
      c.state IN ('waiting_tool', 'waiting_approval') AS waits,
      c.state = 'running' AND s.held_token IS NULL AS answers_parked
    FROM c
    CROSS JOIN LATERAL (
      SELECT s.version, s.hash, s.updated_at, s.state AS from_state, s.token AS held_token, s.worker_id, s.lease_until,
        ledger.transition_type(s.state, c.state, c.error_code, c.token) AS type
      FROM ledger.run_state AS s
      WHERE s.project_id = p_project AND s.run_id = c.run_id
        -- The fence: the current token, or no token where none is held; a person may decide an approval that is held.
        AND (s.token = c.token OR (c.token IS NULL AND (s.token IS NULL OR s.state = 'waiting_approval')))
        AND ledger.legal(ledger.transition_type(s.state, c.state, c.error_code, c.token), s.state, c.state)
        -- A parked run that has its answer is claimable; a second answer would contradict the first.
        AND (s.state NOT IN ('waiting_tool', 'waiting_approval') OR s.available_at IS NULL)
        AND (c.expected IS NULL OR s.version = c.expected)
        AND (c.key IS NULL OR NOT EXISTS (
          SELECT FROM ledger.command AS k WHERE k.project_id = p_project AND k.key = c.key))
        AND s.cost_usd + coalesce(c.cost, 0) >= 0 AND s.step_count + coalesce(c.steps, 0) >= 0
      FOR UPDATE
    ) AS s
  ), n AS MATERIALIZED (
    SELECT t.*, t.version + 1 AS next,
      CASE WHEN t.keeps THEN t.held_token END AS new_token,
      CASE WHEN t.keeps THEN t.worker_id END AS new_worker,
      CASE WHEN t.keeps THEN t.lease_until END AS new_until,
      CASE WHEN NOT t.answers_parked THEN t.state END AS new_state,
      CASE WHEN t.answers_parked THEN t.recorded_at END AS available_at,
      CASE WHEN t.state = 'waiting_approval' THEN t.recorded_at + t.wait END AS wait_until,
      CASE WHEN t.state = 'waiting_approval' AND t.wait IS NOT NULL THEN coalesce(t.wait_outcome, 'cancelled') END AS new_wait_outcome,
      ledger.payload_hash(t.salt, t.body) AS payload_hash
    FROM (
      SELECT g.*, greatest(clock_timestamp(), g.updated_at) AS recorded_at,
        g.state = 'running' OR (g.waits AND NOT g.park) AS keeps
      FROM g
    ) AS t
  ), p AS (
    INSERT INTO ledger.payload (project_id, run_id, version, salt, body)
    SELECT p_project, n.run_id, n.next, n.salt, n.body::json FROM n WHERE n.body IS NOT NULL
  ), k AS (
    INSERT INTO ledger.command (project_id, key, content_hash, run_id, version)
    SELECT p_project, n.key, ledger.command_content(n.run_id, n.state, n.park, n.name, n.error_code, n.body, n.cost,
      n.steps, n.sha256), n.run_id, n.next
    FROM n WHERE n.key IS NOT NULL
  ), h AS MATERIALIZED (
    SELECT n.*,
      ledger.event_hash(n.hash, p_project, n.run_id, n.next, n.recorded_at, n.type, p_actor, state => n.new_state,
        name => n.name, worker_id => n.new_worker, token => n.new_token, lease_until => n.new_until,
        available_at => n.available_at, wait_until => n.wait_until, wait_outcome => n.new_wait_outcome, cost_usd => n.cost,
        step_count => n.steps, error_code => n.error_code, output_sha256 => n.sha256, key => n.key,
        payload_hash => n.payload_hash) AS new_hash
    FROM n
  ), e AS (
    INSERT INTO ledger.event (project_id, run_id, version, recorded_at, type, actor, state, name, worker_id, token,
      lease_until, available_at, wait_until, wait_outcome, cost_usd, step_count, error_code, output_sha256, key, payload_hash,
      hash)
    SELECT p_project, h.run_id, h.next, h.recorded_at, h.type, p_actor, h.new_state, h.name, h.new_worker, h.new_token,
      h.new_until, h.available_at, h.wait_until, h.new_wait_outcome, h.cost, h.steps, h.error_code, h.sha256, h.key,
      h.payload_hash, h.new_hash
    FROM h
  )
  SELECT h.run_id, h.next, h.new_hash, h.from_state FROM h;
END $$;
