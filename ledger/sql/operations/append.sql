-- Appends events that change no state: steps, notes and users' own types, at most one to a run.
-- With a token the lease must be current; steps need a token. A command without a row in the result
-- was not kept: ledger.refuse says why. Locks: run_state rows, in run_id order.
CREATE OR REPLACE FUNCTION ledger.append(
  p_project text, p_actor text, p_runs uuid[], p_tokens int[], p_types text[],
  p_schema_versions int[] DEFAULT NULL, p_names text[] DEFAULT NULL,
  p_error_codes text[] DEFAULT NULL, p_bodies text[] DEFAULT NULL, p_costs numeric[] DEFAULT NULL,
  p_steps int[] DEFAULT NULL, p_expected int[] DEFAULT NULL, p_keys text[] DEFAULT NULL,
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
  writer CONSTANT text := ledger.credential();
  seed bytea := ledger.salt_seed();
BEGIN
  checked := ledger.check_count(cardinality(p_runs));
  checked := ledger.check_workers(p_tokens, p_workers);
  checked := ledger.check_access(p_project, CASE WHEN num_nonnulls(VARIADIC p_tokens) > 0
    THEN '{work}' ELSE '{work,submit,decide}' END::text[], ARRAY[p_actor]);
  checked := ledger.check_given('p_actor', p_actor IS NOT NULL
    OR num_nonnulls(VARIADIC p_tokens) = cardinality(p_runs)); -- else the lease's worker
  checked := ledger.check_given('p_runs', p_runs IS NOT NULL);
  p_schema_versions := coalesce(p_schema_versions, array_fill(1, ARRAY[cardinality(p_runs)]));
  checked := ledger.check_given('p_schema_versions',
    num_nonnulls(VARIADIC p_schema_versions) = cardinality(p_runs));
  checked := ledger.check_texts(p_names || p_error_codes || p_keys);
  checked := ledger.check_texts(ARRAY[p_actor], 200, true);
  checked := ledger.check_types(p_types, p_schema_versions);
  checked := ledger.check_content(p_bodies);
  checked := ledger.check_costs(p_costs);
  checked := ledger.check_corrections(p_tokens, p_costs, p_steps);
  IF num_nonnulls(VARIADIC p_keys) > 0 THEN
    PERFORM ledger.lock_runs(p_project, p_runs);
  END IF;
  RETURN QUERY
  WITH asked AS MATERIALIZED ( -- the commands, in the order of the locks
    SELECT given.*, CASE WHEN given.body IS NOT NULL
      THEN sha256(seed || uuid_send(given.run_id)) END AS salt
    FROM unnest(p_runs, p_tokens, p_types, p_schema_versions, p_names, p_error_codes, p_bodies,
      p_costs::numeric(18, 6)[], p_steps, p_expected, p_keys, p_workers)
      AS given (run_id, token, type, schema_version, name, error_code, body, cost, steps, expected,
        key, worker)
    -- Types that move a lease or a state have functions of their own, which know their rules.
    WHERE split_part(given.type, '.', 1) NOT IN ('run', 'lease', 'tool', 'approval', 'cancel',
      'write', 'payload')
    ORDER BY given.run_id
  ), locked AS MATERIALIZED ( -- those whose run allows them
    SELECT asked.*, run.version, run.hash, run.updated_at, run.worker_id FROM asked
    CROSS JOIN LATERAL (
      SELECT run.version, run.hash, run.updated_at, run.worker_id
      FROM ledger.run_state AS run
      WHERE run.project_id = p_project AND run.run_id = asked.run_id
        AND (asked.token IS NULL AND split_part(asked.type, '.', 1) <> 'step'
          OR run.token = asked.token AND run.lease_credential = writer
            AND run.worker_id IS NOT DISTINCT FROM asked.worker)
        AND ledger.legal(asked.type, run.state, NULL)
        AND (asked.expected IS NULL OR run.version = asked.expected)
        AND (asked.key IS NULL OR NOT EXISTS (
          SELECT FROM ledger.command AS used WHERE used.project_id = p_project
            AND used.key = asked.key OFFSET 0))
        AND run.cost_usd + coalesce(asked.cost, 0) BETWEEN 0 AND 999999999999
          AND run.step_count::bigint + coalesce(asked.steps, 0) BETWEEN 0 AND 2147483647
      FOR UPDATE
    ) AS run
  ), next AS MATERIALIZED ( -- the event that each makes
    SELECT locked.*, locked.version + 1 AS new_version,
      greatest(ledger.now(), locked.updated_at) AS recorded_at,
      coalesce(p_actor, CASE WHEN locked.token IS NOT NULL THEN locked.worker_id END) AS who,
      ledger.payload_hash(locked.salt, locked.body) AS payload_hash
    FROM locked
  ), contents AS (
    INSERT INTO ledger.payload (project_id, run_id, version, salt, body)
    SELECT p_project, next.run_id, next.new_version, next.salt, next.body::json FROM next
      WHERE next.body IS NOT NULL
  )
  INSERT INTO ledger.event AS appended (project_id, run_id, version, recorded_at, type,
    schema_version, actor, name, token, cost_usd, step_count, error_code, key, payload_hash,
    credential, hash)
  SELECT p_project, next.run_id, next.new_version, next.recorded_at, next.type, next.schema_version,
    next.who, next.name, next.token, next.cost, next.steps, next.error_code, next.key,
    next.payload_hash, writer,
    ledger.event_hash(next.hash, p_project, next.run_id, next.new_version, next.recorded_at,
      next.type, next.who, next.schema_version, name => next.name, token => next.token,
      cost_usd => next.cost, step_count => next.steps, error_code => next.error_code,
      key => next.key, payload_hash => next.payload_hash, credential => writer)
  FROM next
  RETURNING appended.run_id, appended.version, appended.hash;

  IF num_nonnulls(VARIADIC p_keys) > 0 THEN
    PERFORM ledger.record_keys(p_project, p_runs, p_keys, ARRAY(
      SELECT ledger.command_text(given.run_id, given.type, false, given.name,
        given.error_code, given.body, given.cost, given.steps, NULL, NULL, NULL)
      FROM unnest(p_runs, p_types, p_names, p_error_codes, p_bodies, p_costs, p_steps)
        WITH ORDINALITY AS given (run_id, type, name, error_code, body, cost, steps, ordinal)
      ORDER BY given.ordinal), seed);
  END IF;
END $$;
