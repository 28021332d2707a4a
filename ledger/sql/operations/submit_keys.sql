-- Settles the idempotency keys of a submit: for each command the run it stands for, and whether
-- that run is to be made. The content of a command is kept as a hash, under a salt of its key; a
-- key whose content was erased has lost its salt, and counts as the same by its name alone.
-- Internal to ledger.submit.
-- Locks: rows of `command`, in key order.
CREATE OR REPLACE FUNCTION ledger.submit_keys(
  p_project text, p_ids uuid[], p_kinds text[], p_inputs text[], p_keys text[], p_priorities int[],
  p_delays interval[], p_max_attempts int[], p_deadlines timestamptz[], p_deadlines_in interval[],
  p_tags text[], p_seed bytea
) RETURNS TABLE (ordinal int, run_id uuid, fresh boolean)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_hashjoin = off
SET enable_mergejoin = off
SET enable_seqscan = off
AS $$
#variable_conflict use_column
DECLARE
  checked boolean;
  contents text[];
  clash record;
BEGIN
  checked := ledger.check_due_keys(p_project, p_keys);
  SELECT array_agg(jsonb_build_array(asked.kind, asked.input, asked.priority,
    extract(epoch FROM asked.delay), asked.max_attempts,
    extract(epoch FROM asked.deadline), extract(epoch FROM asked.deadline_in),
    asked.tags)::text ORDER BY asked.ordinal)
  INTO contents
  FROM unnest(p_kinds, p_inputs, p_priorities, p_delays, p_max_attempts, p_deadlines,
    p_deadlines_in, p_tags) WITH ORDINALITY
    AS asked (kind, input, priority, delay, max_attempts, deadline, deadline_in, tags, ordinal);

  INSERT INTO ledger.command (project_id, key, salt, content_hash, run_id, version)
  SELECT p_project, asked.key, asked.salt, ledger.payload_hash(asked.salt, asked.content),
    asked.run_id, 1
  FROM (
    SELECT DISTINCT ON (asked.key) asked.*,
      sha256(p_seed || convert_to(asked.key, 'UTF8')) AS salt
    FROM unnest(p_keys, contents, p_ids) WITH ORDINALITY AS asked (key, content, run_id, ordinal)
    WHERE asked.key IS NOT NULL ORDER BY asked.key, asked.ordinal
  ) AS asked
  ORDER BY asked.key
  ON CONFLICT DO NOTHING;

  -- A statement of its own, for a snapshot that sees what a concurrent submit of the same key
  -- has committed.
  SELECT asked.key, known.run_id, known.version INTO clash
  FROM unnest(p_keys, contents) AS asked (key, content)
  CROSS JOIN LATERAL (
    SELECT command.* FROM ledger.command AS command
    WHERE command.project_id = p_project AND command.key = asked.key OFFSET 0
  ) AS known
  WHERE known.content_hash <> ledger.payload_hash(known.salt, asked.content) LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'key % was used with other content', clash.key USING ERRCODE = 'RF409',
      DETAIL = json_build_object('key', clash.key, 'run_id', clash.run_id, 'version',
        clash.version);
  END IF;

  RETURN QUERY
  SELECT asked.ordinal::int, coalesce(known.run_id, asked.run_id),
    asked.key IS NULL OR known.run_id = asked.run_id
  FROM unnest(p_keys, p_ids) WITH ORDINALITY AS asked (key, run_id, ordinal)
  LEFT JOIN LATERAL (
    SELECT command.run_id FROM ledger.command AS command
    WHERE command.project_id = p_project AND command.key = asked.key OFFSET 0
  ) AS known ON true;
END $$;
