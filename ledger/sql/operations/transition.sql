-- Moves runs along the edges of the state machine and appends what happened, in one statement for all of them.
-- Kept are the commands whose run allows them: the token is current (or none is given and none is needed), the edge is legal,
-- the expected version matches, no total falls below zero. What is not returned was not kept: ledger.refuse says why.
-- Locks: run_state rows, in run_id order.
CREATE OR REPLACE FUNCTION ledger.transition(
  p_project text, p_actors text[], p_runs uuid[], p_tokens int[], p_states text[], p_parks boolean[], p_names text[],
  p_error_codes text[], p_bodies text[], p_costs numeric[], p_steps int[], p_sha256s bytea[], p_waits interval[],
  p_wait_outcomes text[], p_expected int[], p_keys text[], p_workers text[] DEFAULT NULL
) RETURNS TABLE (run_id uuid, version int, hash bytea, from_state text)
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
  IF p_waits IS NOT NULL THEN -- asked first: a query costs as much as the fold of an event
    IF EXISTS (SELECT FROM unnest(p_waits) AS u (given) WHERE u.given NOT BETWEEN '0' AND '3650 days') THEN
      RAISE EXCEPTION 'a wait must end, within ten years' USING ERRCODE = '22023';
    END IF;
  END IF;
  IF NOT array_remove(p_wait_outcomes, NULL) <@ ARRAY['cancelled', 'timeout'] THEN
    RAISE EXCEPTION 'whom nobody decides on is cancelled or timeout' USING ERRCODE = '22023';
  END IF;
  checked := ledger.check_texts(p_actors, 200, true);
  checked := ledger.check_texts(p_names || p_error_codes || p_keys);
  checked := ledger.check_content(p_bodies);
  IF num_nonnulls(VARIADIC p_keys) > 0 THEN
    -- Locked by a statement of its own: the next one's snapshot then sees the key that whoever held the lock has used.
    PERFORM FROM (SELECT u.run_id FROM unnest(p_runs) AS u (run_id) ORDER BY u.run_id OFFSET 0) AS c
    CROSS JOIN LATERAL (
      SELECT FROM ledger.run_state AS s WHERE s.project_id = p_project AND s.run_id = c.run_id FOR UPDATE
    ) AS s;
  END IF;
  RETURN QUERY
  WITH n AS MATERIALIZED (
    SELECT f.*,
      ledger.event_hash(f.hash, p_project, f.run_id, f.next, f.recorded_at, f.type, f.who, state => f.new_state,
        name => f.name, worker_id => f.new_worker, token => f.new_token, lease_until => f.new_until,
        available_at => f.available_at, wait_until => f.wait_until, wait_outcome => f.new_wait_outcome, cost_usd => f.cost,
        step_count => f.steps, error_code => f.error_code, output_sha256 => f.sha256, key => f.key,
        payload_hash => f.payload_hash) AS new_hash
    FROM (
      SELECT c.run_id, c.name, c.error_code, c.body, c.cost, c.steps, c.sha256, c.key, c.salt, s.hash, s.from_state, s.type, s.next,
        s.recorded_at, coalesce(c.actor, CASE WHEN c.token IS NOT NULL THEN s.worker_id END) AS who,
        CASE WHEN c.keeps THEN s.held_token END AS new_token,
        CASE WHEN c.keeps THEN s.worker_id END AS new_worker,
        CASE WHEN c.keeps THEN s.lease_until END AS new_until,
        CASE WHEN NOT s.answers_parked THEN c.state END AS new_state,
        CASE WHEN s.answers_parked THEN s.recorded_at END AS available_at,
        CASE WHEN c.waits THEN s.recorded_at + c.wait END AS wait_until,
        CASE WHEN c.state = 'waiting_approval' AND c.wait IS NOT NULL THEN coalesce(c.wait_outcome, 'cancelled') END
          AS new_wait_outcome,
        ledger.payload_hash(c.salt, c.body) AS payload_hash
      FROM (
        SELECT u.*, u.state IN ('waiting_tool', 'waiting_approval') AS waits,
          u.state = 'running' OR (u.state IN ('waiting_tool', 'waiting_approval') AND u.park IS NOT TRUE) AS keeps,
          CASE WHEN u.body IS NOT NULL THEN sha256(seed || uuid_send(u.run_id)) END AS salt
        FROM unnest(p_actors, p_runs, p_tokens, p_states, p_parks, p_names, p_error_codes, p_bodies,
          p_costs::numeric(18, 6)[], p_steps, p_sha256s, p_waits, p_wait_outcomes, p_expected, p_keys, p_workers)
          AS u (actor, run_id, token, state, park, name, error_code, body, cost, steps, sha256, wait, wait_outcome, expected, key,
            worker)
        ORDER BY u.run_id OFFSET 0
      ) AS c
      CROSS JOIN LATERAL (
        SELECT s.version + 1 AS next, s.hash, s.state AS from_state, s.token AS held_token, s.worker_id, s.lease_until,
          greatest(ledger.now(), s.updated_at) AS recorded_at, c.state = 'running' AND s.token IS NULL AS answers_parked,
          ledger.transition_type(s.state, c.state, c.error_code, c.token) AS type
        FROM ledger.run_state AS s
        WHERE s.project_id = p_project AND s.run_id = c.run_id
          -- The fence: the current token, or no token where none is held; a person may decide an approval that is held.
          -- A worker that is named must be its holder: after a fail-over that lost events, a token may be
          -- another's.
          AND (s.token = c.token AND (c.worker IS NULL OR s.worker_id = c.worker) OR (c.token IS NULL AND (s.token IS NULL OR s.state = 'waiting_approval')))
          AND ledger.legal(ledger.transition_type(s.state, c.state, c.error_code, c.token), s.state, c.state)
          -- A parked run that has its answer is claimable; a second answer would contradict the first.
          AND (s.state NOT IN ('waiting_tool', 'waiting_approval') OR s.available_at IS NULL)
          -- An answer after the wait's end comes too late, whether or not a reaper has been here.
          AND (c.token IS NOT NULL OR s.wait_until IS NULL OR s.wait_until > ledger.now())
          AND CASE WHEN s.state = 'waiting_approval' AND c.actor IS NOT NULL
            THEN ledger.may_not_decide(p_project, s.run_id, c.actor) IS NULL ELSE true END
          AND (c.expected IS NULL OR s.version = c.expected)
          AND (c.key IS NULL OR NOT EXISTS (
            SELECT FROM ledger.command AS k WHERE k.project_id = p_project AND k.key = c.key OFFSET 0))
          AND s.cost_usd + coalesce(c.cost, 0) BETWEEN 0 AND 999999999999
          AND s.step_count::bigint + coalesce(c.steps, 0) BETWEEN 0 AND 2147483647
        FOR UPDATE
      ) AS s
      OFFSET 0
    ) AS f
  ), p AS (
    INSERT INTO ledger.payload (project_id, run_id, version, salt, body)
    SELECT p_project, n.run_id, n.next, n.salt, n.body::json FROM n WHERE n.body IS NOT NULL
  ), e AS (
    INSERT INTO ledger.event (project_id, run_id, version, recorded_at, type, actor, state, name, worker_id, token,
      lease_until, available_at, wait_until, wait_outcome, cost_usd, step_count, error_code, output_sha256, key, payload_hash,
      hash)
    SELECT p_project, n.run_id, n.next, n.recorded_at, n.type, n.who, n.new_state, n.name, n.new_worker, n.new_token,
      n.new_until, n.available_at, n.wait_until, n.new_wait_outcome, n.cost, n.steps, n.error_code, n.sha256, n.key,
      n.payload_hash, n.new_hash
    FROM n
  )
  SELECT n.run_id, n.next, n.new_hash, n.from_state FROM n;

  IF num_nonnulls(VARIADIC p_keys) > 0 THEN
    INSERT INTO ledger.command (project_id, key, content_hash, run_id, version)
    SELECT p_project, u.key,
      ledger.command_content(u.run_id, u.state, u.park, u.name, u.error_code, u.body, u.cost, u.steps, u.sha256, u.wait,
        u.wait_outcome), u.run_id, k.version
    FROM unnest(p_runs, p_states, p_parks, p_names, p_error_codes, p_bodies, p_costs, p_steps, p_sha256s, p_waits,
      p_wait_outcomes, p_keys)
      AS u (run_id, state, park, name, error_code, body, cost, steps, sha256, wait, wait_outcome, key)
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
