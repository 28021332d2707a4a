-- Submits runs: appends run.submitted for each, all or none. Returns one row per command, in the
-- order given. A key that was used before names the run that it made then, of which only the id is
-- returned; used with other content it is refused with RF409, and nothing is written. Locks: rows
-- of `command` in key order (waits for a concurrent submit of the same key); new runs need none.
CREATE OR REPLACE FUNCTION ledger.submit(
  p_project text, p_actor text, p_kinds text[], p_inputs text[] DEFAULT NULL,
  p_keys text[] DEFAULT NULL, p_priorities int[] DEFAULT NULL, p_delays interval[] DEFAULT NULL,
  p_max_attempts int[] DEFAULT NULL, p_deadlines timestamptz[] DEFAULT NULL,
  p_deadlines_in interval[] DEFAULT NULL, p_tags text[] DEFAULT NULL
) RETURNS TABLE (ordinal int, run_id uuid, fresh boolean, recorded_at timestamptz,
  available_at timestamptz, deadline timestamptz, hash bytea)
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
  writer CONSTANT text := ledger.credential();
  checked boolean;
  seed bytea := ledger.salt_seed();
  content text;
  -- Drawn before the ids of the runs: low-water marks wait for this transaction
  -- (ledger/sql/marks/move_low_water.sql).
  txid CONSTANT xid8 := pg_current_xact_id();
  ids uuid[];
  fresh boolean[];
  past timestamptz;
BEGIN
  checked := ledger.check_count(cardinality(p_kinds));
  checked := ledger.check_access(p_project, '{submit}', ARRAY[p_actor]);
  checked := ledger.check_given('p_actor', p_actor IS NOT NULL);
  checked := ledger.check_given('p_kinds', num_nulls(VARIADIC p_kinds) = 0);
  p_priorities := coalesce(p_priorities, array_fill(0, ARRAY[cardinality(p_kinds)]));
  p_max_attempts := coalesce(p_max_attempts, array_fill(3, ARRAY[cardinality(p_kinds)]));
  checked := ledger.check_given('p_priorities',
    num_nonnulls(VARIADIC p_priorities) = cardinality(p_kinds));
  checked := ledger.check_given('p_max_attempts',
    num_nonnulls(VARIADIC p_max_attempts) = cardinality(p_kinds));
  -- The greatest int is no priority: a claim searches below it.
  IF EXISTS (
    SELECT FROM unnest(p_delays, p_deadlines_in, p_priorities, p_max_attempts)
      AS asked (delay, deadline_in, priority, attempts)
    WHERE asked.delay NOT BETWEEN '0' AND '3650 days'
      OR asked.deadline_in <= '0' OR asked.deadline_in > '3650 days'
      OR asked.priority NOT BETWEEN 0 AND 2147483646 OR asked.attempts NOT BETWEEN 1 AND 1000
  ) THEN
    RAISE EXCEPTION 'a value is outside its limits: a delay and a deadline are at most ten years, '
      'a deadline is not at once, a priority is 0 to 2147483646, attempts are 1 to 1000'
      USING ERRCODE = '22023';
  END IF;
  IF num_nonnulls(VARIADIC p_deadlines) > 0 THEN
    checked := ledger.check_times(p_deadlines);
  END IF;
  checked := ledger.check_texts(ARRAY[p_actor] || p_kinds, 200, true);
  checked := ledger.check_texts(p_keys);
  checked := ledger.check_tags(p_tags);
  checked := ledger.check_content(p_inputs);
  FOREACH content IN ARRAY coalesce(p_inputs, '{}') LOOP
    CONTINUE WHEN content IS NULL OR starts_with(content, '{"input"'); -- as Python writes it
    IF EXISTS (SELECT FROM json_object_keys(content::json) AS member
      WHERE member NOT IN ('input', 'parent')) THEN
      RAISE EXCEPTION 'content % is not {"input": …}: a run would have no input',
        quote_literal(left(content, 40)) USING ERRCODE = '22023';
    END IF;
  END LOOP;
  IF NOT EXISTS (SELECT FROM ledger.project AS project WHERE project.project_id = p_project) THEN
    RAISE EXCEPTION 'project % does not exist', p_project USING ERRCODE = 'RF404';
  END IF;
  FOR attempt IN 1..2 LOOP -- ids made before their month had its partition are made again
    SELECT array_agg(asked.id ORDER BY asked.id), array_agg(true) INTO ids, fresh
    FROM (SELECT ledger.uuid7() AS id FROM generate_series(1, cardinality(p_kinds))
      OFFSET 0) AS asked;
    EXIT WHEN ledger.ensure_months(ids[1], ids[cardinality(ids)]);
  END LOOP;

  INSERT INTO ledger.kind (project_id, kind, run_id)
  SELECT p_project, asked.kind, ids[1] FROM (SELECT DISTINCT unnest(p_kinds) AS kind) AS asked
  WHERE NOT EXISTS (SELECT FROM ledger.kind AS known
    WHERE known.project_id = p_project AND known.kind = asked.kind OFFSET 0);

  IF num_nonnulls(VARIADIC p_keys) > 0 THEN
    SELECT array_agg(known.run_id ORDER BY known.ordinal),
      array_agg(known.fresh ORDER BY known.ordinal) INTO ids, fresh
    FROM ledger.submit_keys(p_project, ids, p_kinds, p_inputs, p_keys, p_priorities, p_delays,
      p_max_attempts, p_deadlines, p_deadlines_in, p_tags, seed) AS known;
  END IF;

  -- Only new runs are refused: a repeated command has its first outcome, however late it comes.
  IF num_nonnulls(VARIADIC p_deadlines) > 0 THEN
    SELECT min(asked.deadline_at) INTO past
    FROM unnest(fresh, p_deadlines) AS asked (fresh, deadline_at)
    WHERE asked.fresh AND asked.deadline_at <= ledger.now();
    IF past IS NOT NULL THEN
      RAISE EXCEPTION 'deadline % is in the past by the database''s clock', past
        USING ERRCODE = '22023';
    END IF;
  END IF;

  RETURN QUERY
  WITH made AS MATERIALIZED ( -- the runs that do not exist yet
    SELECT salted.*,
      ledger.event_hash(''::bytea, p_project, salted.run_id, 1, salted.recorded_at,
        'run.submitted', p_actor, state => 'pending', kind => salted.kind,
        priority => salted.priority, max_attempts => salted.max_attempts,
        deadline => salted.deadline, tags => salted.tags, available_at => salted.available_at,
        key => salted.key, payload_hash => salted.payload_hash, credential => writer) AS hash
    FROM (
      SELECT timed.*, ledger.payload_hash(timed.salt, timed.input) AS payload_hash
      FROM ( -- with its instants and the salt of its input
        SELECT asked.ordinal, asked.run_id, asked.kind, asked.input, asked.key, asked.priority,
          asked.max_attempts, asked.recorded_at,
          asked.recorded_at + coalesce(asked.delay, '0') AS available_at,
          coalesce(asked.deadline_at, asked.recorded_at + asked.deadline_in) AS deadline,
          coalesce(asked.tags, '{}')::text[] AS tags,
          CASE WHEN asked.input IS NOT NULL THEN sha256(seed || uuid_send(asked.run_id)) END AS salt
        FROM (
          SELECT given.*, ledger.now() AS recorded_at
          FROM unnest(ids, fresh, p_kinds, p_inputs, p_keys, p_priorities, p_delays,
            p_max_attempts, p_deadlines, p_deadlines_in, p_tags) WITH ORDINALITY
            AS given (run_id, fresh, kind, input, key, priority, delay, max_attempts, deadline_at,
              deadline_in, tags, ordinal)
          WHERE given.fresh OFFSET 0
        ) AS asked OFFSET 0
      ) AS timed OFFSET 0
    ) AS salted
  ), contents AS (
    INSERT INTO ledger.payload (project_id, run_id, version, salt, body)
    SELECT p_project, made.run_id, 1, made.salt, made.input::json FROM made
      WHERE made.input IS NOT NULL
  ), appended AS (
    INSERT INTO ledger.event (project_id, run_id, version, recorded_at, type, actor, state, kind,
      priority, max_attempts, deadline, tags, available_at, key, payload_hash, credential, hash)
    SELECT p_project, made.run_id, 1, made.recorded_at, 'run.submitted', p_actor, 'pending',
      made.kind, made.priority, made.max_attempts, made.deadline, made.tags, made.available_at,
      made.key, made.payload_hash, writer, made.hash
    FROM made
  )
  SELECT told.ordinal::int, told.run_id, told.fresh, told.recorded_at, told.available_at,
    told.deadline, told.hash
  FROM (
    SELECT made.ordinal, made.run_id, true AS fresh, made.recorded_at, made.available_at,
      made.deadline, made.hash FROM made
    UNION ALL
    SELECT given.ordinal, given.run_id, false, NULL, NULL, NULL, NULL
    FROM unnest(ids, fresh) WITH ORDINALITY AS given (run_id, fresh, ordinal)
    WHERE NOT given.fresh
  ) AS told
  ORDER BY told.ordinal;
END $$;
