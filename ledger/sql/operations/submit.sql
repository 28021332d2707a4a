-- Submits runs: appends run.submitted for each, all or none. Returns one row per command, in the order given.
-- A key that was used before gives the run it named then; with other content it is RF409 and nothing is written.
-- Locks: rows of `command` in key order (waits for a concurrent submit of the same key); no run exists before it is made.
CREATE OR REPLACE FUNCTION ledger.submit(
  p_project text, p_actor text, p_kinds text[], p_inputs text[], p_keys text[], p_priorities int[], p_delays interval[],
  p_max_attempts int[], p_deadlines timestamptz[], p_deadlines_in interval[], p_tags text[]
) RETURNS TABLE (ordinal int, run_id uuid, fresh boolean)
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
  ids uuid[];
  fresh boolean[];
BEGIN
  -- A claim looks for priorities below the greatest number.
  IF EXISTS (
    SELECT FROM unnest(p_delays, p_deadlines, p_deadlines_in, p_priorities, p_max_attempts) AS u (delay, at, within, priority, most)
    WHERE u.delay NOT BETWEEN '0' AND '3650 days' OR u.at NOT BETWEEN '1970-01-01' AND '9001-01-01'
      OR u.within NOT BETWEEN '0' AND '3650 days' OR u.priority NOT BETWEEN 0 AND 2147483646 OR u.most NOT BETWEEN 1 AND 1000
  ) THEN
    RAISE EXCEPTION 'a delay, a deadline, a priority or a number of attempts is out of its limits' USING ERRCODE = '22023';
  END IF;
  checked := ledger.check_texts(ARRAY[p_actor] || p_kinds, 200, true);
  checked := ledger.check_texts(p_keys);
  checked := ledger.check_tags(p_tags);
  checked := ledger.check_content(p_inputs);
  IF NOT EXISTS (SELECT FROM ledger.project AS p WHERE p.project_id = p_project) THEN
    RAISE EXCEPTION 'project % does not exist', p_project USING ERRCODE = 'RF404';
  END IF;
  SELECT array_agg(u.id ORDER BY u.id), array_agg(true) INTO ids, fresh
  FROM (SELECT ledger.uuid7() AS id FROM generate_series(1, cardinality(p_kinds)) OFFSET 0) AS u;

  INSERT INTO ledger.kind (project_id, kind, run_id)
  SELECT p_project, u.kind, ids[1] FROM (SELECT DISTINCT unnest(p_kinds) AS kind) AS u
  WHERE NOT EXISTS (SELECT FROM ledger.kind AS k WHERE k.project_id = p_project AND k.kind = u.kind OFFSET 0);

  IF num_nonnulls(VARIADIC p_keys) > 0 THEN
    SELECT array_agg(k.run_id ORDER BY k.ordinal), array_agg(k.fresh ORDER BY k.ordinal) INTO ids, fresh
    FROM ledger.submit_keys(p_project, ids, p_kinds, p_inputs, p_keys, p_priorities, p_delays, p_max_attempts, p_deadlines,
      p_deadlines_in, p_tags) AS k;
  END IF;

  -- Of new runs only: a command that is repeated has its first outcome, however late it comes.
  IF num_nonnulls(VARIADIC p_deadlines) > 0 AND EXISTS (
    SELECT FROM unnest(fresh, p_deadlines) AS u (fresh, at) WHERE u.fresh AND u.at <= ledger.now()
  ) THEN
    RAISE EXCEPTION 'a deadline is in the past' USING ERRCODE = '22023';
  END IF;

  RETURN QUERY
  WITH c AS MATERIALIZED (
    SELECT u.*, u.recorded_at + coalesce(u.delay, '0') AS available_at, coalesce(u.deadline_at, u.recorded_at + u.deadline_in) AS deadline,
      CASE WHEN u.input IS NOT NULL THEN sha256(seed || uuid_send(u.run_id)) END AS salt
    FROM (
      SELECT a.*, ledger.now() AS recorded_at
      FROM unnest(ids, fresh, p_kinds, p_inputs, p_keys, p_priorities, p_delays, p_max_attempts, p_deadlines, p_deadlines_in,
        p_tags) WITH ORDINALITY
        AS a (run_id, fresh, kind, input, key, priority, delay, max_attempts, deadline_at, deadline_in, tags, ordinal)
    ) AS u
  ), n AS MATERIALIZED (
    SELECT c.run_id, c.kind, c.input, c.key, c.priority, c.max_attempts, c.recorded_at, c.available_at, c.deadline, c.salt,
      coalesce(c.tags, '{}')::text[] AS tags, ledger.payload_hash(c.salt, c.input) AS payload_hash
    FROM c WHERE c.fresh
  ), p AS (
    INSERT INTO ledger.payload (project_id, run_id, version, salt, body)
    SELECT p_project, n.run_id, 1, n.salt, n.input::json FROM n WHERE n.input IS NOT NULL
  ), e AS (
    INSERT INTO ledger.event (project_id, run_id, version, recorded_at, type, actor, state, kind, priority, max_attempts,
      deadline, tags, available_at, key, payload_hash, hash)
    SELECT p_project, n.run_id, 1, n.recorded_at, 'run.submitted', p_actor, 'pending', n.kind, n.priority, n.max_attempts,
      n.deadline, n.tags, n.available_at, n.key, n.payload_hash,
      ledger.event_hash(''::bytea, p_project, n.run_id, 1, n.recorded_at, 'run.submitted', p_actor, state => 'pending',
        kind => n.kind, priority => n.priority, max_attempts => n.max_attempts, deadline => n.deadline, tags => n.tags,
        available_at => n.available_at, key => n.key, payload_hash => n.payload_hash)
    FROM n
  )
  SELECT c.ordinal::int, c.run_id, c.fresh FROM c ORDER BY c.ordinal;
END $$;
