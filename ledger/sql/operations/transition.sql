-- Moves runs along the edges of the state machine and appends what happened, in one statement
-- for all of them. A command is kept if its run allows it: the token is current (or none is given
-- and none is needed), the edge is legal, the expected version matches, no total falls below zero.
-- A command without a row in the result was not kept: ledger.refuse says why. An approval is
-- decided by ledger.decide alone.
-- Locks: run_state rows, in run_id order.
CREATE OR REPLACE FUNCTION ledger.transition(
  p_project text, p_actors text[], p_runs uuid[], p_tokens int[], p_states text[],
  p_parks boolean[] DEFAULT NULL, p_names text[] DEFAULT NULL, p_error_codes text[] DEFAULT NULL,
  p_bodies text[] DEFAULT NULL, p_costs numeric[] DEFAULT NULL, p_steps int[] DEFAULT NULL,
  p_sha256s bytea[] DEFAULT NULL, p_waits interval[] DEFAULT NULL,
  p_wait_outcomes text[] DEFAULT NULL, p_expected int[] DEFAULT NULL, p_keys text[] DEFAULT NULL,
  p_workers text[] DEFAULT NULL
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
  writer CONSTANT text := ledger.credential();
  seed bytea := ledger.salt_seed();
  wrong text;
BEGIN
  checked := ledger.check_count(cardinality(p_runs));
  checked := ledger.check_workers(p_tokens, p_workers);
  checked := ledger.check_access(p_project, CASE WHEN num_nonnulls(VARIADIC p_tokens) > 0
    THEN '{work}' ELSE '{work,submit}' END::text[], p_actors);
  IF greatest(num_nonnulls(VARIADIC p_tokens), num_nonnulls(VARIADIC p_actors), 0)
    < cardinality(p_runs) THEN -- counted first: the query costs more
    checked := ledger.check_given('p_actors', NOT EXISTS (
      SELECT FROM unnest(p_runs, p_tokens, p_actors) AS given (run, token, actor)
      WHERE given.run IS NOT NULL AND num_nonnulls(given.token, given.actor) = 0));
  END IF;
  IF p_waits IS NOT NULL THEN -- seldom; each query costs as much as the fold of an event
    IF EXISTS (SELECT FROM unnest(p_waits) AS given (wait)
      WHERE given.wait <= '0' OR given.wait > '3650 days') THEN
      RAISE EXCEPTION 'a wait must end within ten years, and not at once' USING ERRCODE = '22023';
    END IF;
    IF EXISTS (SELECT FROM unnest(p_states, p_parks, p_waits) AS given (state, park, wait)
      WHERE given.wait IS NOT NULL AND given.state <> 'waiting_approval'
        AND NOT (given.state = 'waiting_tool' AND coalesce(given.park, false))) THEN
      RAISE EXCEPTION 'only a wait for an approval, or for a tool while parked, may have an end'
        USING ERRCODE = '22023';
    END IF;
  END IF;
  IF NOT array_remove(p_states, NULL) <@ ARRAY['pending', 'running', 'waiting_tool',
    'waiting_approval', 'completed', 'failed', 'cancelled', 'timeout'] THEN
    RAISE EXCEPTION 'states % have one that does not exist: a run goes to running, waiting_tool, '
      'waiting_approval, completed, failed, cancelled or timeout',
      quote_literal(left(p_states::text, 200)) USING ERRCODE = '22023';
  END IF;
  IF true = ANY (p_parks) THEN
    SELECT given.state INTO wrong FROM unnest(p_states, p_parks) AS given (state, park)
    WHERE given.park AND given.state NOT IN ('waiting_tool', 'waiting_approval') LIMIT 1;
    IF FOUND THEN
      RAISE EXCEPTION 'only a waiting run can be parked, not one that becomes %', wrong
        USING ERRCODE = '22023';
    END IF;
  END IF;
  IF NOT array_remove(p_wait_outcomes, NULL) <@ ARRAY['cancelled', 'timeout', 'lapsed'] THEN
    RAISE EXCEPTION 'wait_outcome must be cancelled, timeout or lapsed' USING ERRCODE = '22023';
  END IF;
  checked := ledger.check_texts(p_actors, 200, true);
  checked := ledger.check_texts(p_names || p_error_codes || p_keys);
  checked := ledger.check_content(p_bodies);
  checked := ledger.check_costs(p_costs);
  checked := ledger.check_corrections(p_tokens, p_costs, p_steps);
  IF num_nonnulls(VARIADIC p_keys) > 0 THEN
    PERFORM ledger.lock_runs(p_project, p_runs);
  END IF;
  RETURN QUERY
  WITH next AS MATERIALIZED ( -- each event that will be appended, with its hash
    SELECT decided.*,
      ledger.event_hash(decided.hash, p_project, decided.run_id, decided.new_version,
        decided.recorded_at, decided.type, decided.who, state => decided.new_state,
        name => decided.name, worker_id => decided.new_worker, token => decided.new_token,
        lease_until => decided.new_until, available_at => decided.available_at,
        wait_until => decided.wait_until, wait_outcome => decided.new_wait_outcome,
        cost_usd => decided.cost, step_count => decided.steps, error_code => decided.error_code,
        output_sha256 => decided.sha256, key => decided.key, payload_hash => decided.payload_hash,
        credential => writer, role => decided.role,
        other_person => decided.other_person, shown_sha256 => decided.shown_sha256,
        based_on => decided.based_on, approvals => decided.approvals,
        approved => decided.approvals * 0) AS new_hash
    FROM (
      -- the event that each command makes of its run
      SELECT timed.run_id, timed.name, timed.error_code, timed.body, timed.cost, timed.steps,
        timed.sha256, timed.key, timed.salt, timed.hash, timed.from_state, timed.type,
        timed.new_version, timed.recorded_at,
        coalesce(timed.actor, CASE WHEN timed.token IS NOT NULL THEN timed.worker_id END) AS who,
        CASE WHEN timed.keeps THEN timed.held_token END AS new_token,
        CASE WHEN timed.keeps THEN timed.worker_id END AS new_worker,
        CASE WHEN timed.keeps THEN timed.lease_until END AS new_until,
        CASE WHEN NOT timed.answers_parked THEN timed.state END AS new_state,
        CASE WHEN timed.answers_parked THEN timed.recorded_at END AS available_at,
        CASE WHEN timed.waits THEN timed.recorded_at + timed.wait END AS wait_until,
        CASE WHEN timed.state = 'waiting_approval' AND timed.wait IS NOT NULL
          THEN coalesce(timed.wait_outcome, 'cancelled') END AS new_wait_outcome,
        ledger.payload_hash(timed.salt, timed.body) AS payload_hash,
        -- Who may decide, and what was shown, are facts: content may be erased.
        CASE timed.type WHEN 'approval.requested' THEN timed.body::json ->> 'role' END AS role,
        CASE timed.type WHEN 'approval.requested' THEN
          CASE WHEN timed.body::json ->> 'other_person' = 'true' THEN true END END AS other_person,
        CASE timed.type WHEN 'approval.requested' THEN
            substring(timed.body::json ->> 'shown_sha256' FROM '^[0-9a-f]{64}$')
        END AS shown_sha256,
        CASE timed.type WHEN 'approval.requested' THEN coalesce(
          substring(timed.body::json ->> 'based_on' FROM '^[1-9][0-9]{0,8}$')::int, timed.expected)
        END AS based_on,
        CASE timed.type WHEN 'approval.requested' THEN ledger.check_request(timed.body)
        END AS approvals
      FROM (
        -- dated after the lock, which may have been waited for
        SELECT asked.*, locked.*, greatest(ledger.now(), locked.updated_at) AS recorded_at
        FROM (
          -- the commands, in the order of the locks
          SELECT given.*, given.state IN ('waiting_tool', 'waiting_approval') AS waits,
            given.state = 'running' OR (given.state IN ('waiting_tool', 'waiting_approval')
              AND given.park IS NOT TRUE) AS keeps,
            CASE WHEN given.body IS NOT NULL
              THEN sha256(seed || uuid_send(given.run_id)) END AS salt
          FROM unnest(p_actors, p_runs, p_tokens, p_states, p_parks, p_names, p_error_codes,
            p_bodies, p_costs::numeric(18, 6)[], p_steps, p_sha256s, p_waits, p_wait_outcomes,
            p_expected, p_keys, p_workers)
            AS given (actor, run_id, token, state, park, name, error_code, body, cost, steps,
              sha256, wait, wait_outcome, expected, key, worker)
          ORDER BY given.run_id OFFSET 0
        ) AS asked
        CROSS JOIN LATERAL (
          -- the run as it is now, if it allows the command
          SELECT locked.version + 1 AS new_version, locked.hash, locked.state AS from_state,
            locked.token AS held_token, locked.worker_id, locked.lease_until, locked.updated_at,
            locked.wait_until AS waits_until, asked.state = 'running' AND locked.token IS NULL
              AS answers_parked,
            ledger.transition_type(locked.state, asked.state, asked.error_code) AS type
          FROM ledger.run_state AS locked
          WHERE locked.project_id = p_project AND locked.run_id = asked.run_id
            -- The fence: the current token, or no token where none is held. The worker must be
            -- its holder: after a fail-over that lost events, a token may be another's.
            AND (locked.token = asked.token AND locked.lease_credential = writer
                AND locked.worker_id IS NOT DISTINCT FROM asked.worker
              OR asked.token IS NULL AND locked.token IS NULL
                AND locked.state <> 'waiting_approval')
            -- A parked run that has its answer is claimable; a second answer would contradict the
            -- first.
            AND (locked.state NOT IN ('waiting_tool', 'waiting_approval')
              OR locked.available_at IS NULL)
            AND (asked.expected IS NULL OR locked.version = asked.expected)
            AND (asked.key IS NULL OR NOT EXISTS (
              SELECT FROM ledger.command AS used WHERE used.project_id = p_project
                AND used.key = asked.key OFFSET 0))
            AND locked.cost_usd + coalesce(asked.cost, 0) BETWEEN 0 AND 999999999999
            AND locked.step_count::bigint + coalesce(asked.steps, 0) BETWEEN 0 AND 2147483647
          FOR UPDATE
        ) AS locked
        OFFSET 0
      ) AS timed
      WHERE ledger.legal(timed.type, timed.from_state, timed.state)
        -- An answer after the wait's end comes too late, whether or not a reaper has been here.
        AND (timed.token IS NOT NULL OR timed.waits_until IS NULL
          OR timed.waits_until > timed.recorded_at)
      OFFSET 0
    ) AS decided
  ), contents AS (
    INSERT INTO ledger.payload (project_id, run_id, version, salt, body)
    SELECT p_project, next.run_id, next.new_version, next.salt, next.body::json FROM next
      WHERE next.body IS NOT NULL
  ), appended AS (
    INSERT INTO ledger.event (project_id, run_id, version, recorded_at, type, actor, state, name,
      worker_id, token, lease_until, available_at, wait_until, wait_outcome, cost_usd, step_count,
      error_code, output_sha256, key, payload_hash, credential, role, other_person, shown_sha256,
      based_on, approvals, approved, hash)
    SELECT p_project, next.run_id, next.new_version, next.recorded_at, next.type, next.who,
      next.new_state, next.name, next.new_worker, next.new_token, next.new_until,
      next.available_at, next.wait_until, next.new_wait_outcome, next.cost, next.steps,
      next.error_code, next.sha256, next.key, next.payload_hash, writer, next.role,
      next.other_person, next.shown_sha256, next.based_on, next.approvals, next.approvals * 0,
      next.new_hash
    FROM next
  )
  SELECT next.run_id, next.new_version, next.new_hash, next.from_state FROM next;

  IF num_nonnulls(VARIADIC p_keys) > 0 THEN
    PERFORM ledger.record_keys(p_project, p_runs, p_keys, ARRAY(
      SELECT ledger.command_text(given.run_id, given.state, given.park, given.name,
        given.error_code, given.body, given.cost, given.steps, given.sha256, given.wait,
        given.wait_outcome)
      FROM unnest(p_runs, p_states, p_parks, p_names, p_error_codes, p_bodies, p_costs, p_steps,
        p_sha256s, p_waits, p_wait_outcomes) WITH ORDINALITY
        AS given (run_id, state, park, name, error_code, body, cost, steps, sha256, wait,
          wait_outcome, ordinal)
      ORDER BY given.ordinal), seed);
  END IF;
END $$;
