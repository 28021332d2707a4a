-- Settles the idempotency keys of a submit: for each command the run it stands for, and whether
-- that run is to be made. Internal to ledger.submit. Locks: rows of `command`, in key order.
CREATE OR REPLACE FUNCTION ledger.submit_keys(
  p_project text, p_ids uuid[], p_kinds text[], p_inputs text[], p_keys text[], p_priorities int[],
  p_delays interval[],
  p_max_attempts int[], p_deadlines timestamptz[], p_deadlines_in interval[], p_tags text[]
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
  hashes bytea[];
  made uuid[];
  clash record;
BEGIN
  SELECT array_agg(sha256(convert_to(jsonb_build_array(u.kind, u.input, u.priority,
    extract(epoch FROM u.delay), u.max_attempts,
      extract(epoch FROM u.deadline), extract(epoch FROM u.deadline_in), u.tags)::text, 'UTF8'))
        ORDER BY u.ordinal)
  INTO hashes
  FROM unnest(p_kinds, p_inputs, p_priorities, p_delays, p_max_attempts, p_deadlines,
    p_deadlines_in, p_tags) WITH ORDINALITY
    AS u (kind, input, priority, delay, max_attempts, deadline, deadline_in, tags, ordinal);

  WITH w AS (
    INSERT INTO ledger.command AS k (project_id, key, content_hash, run_id, version)
    SELECT DISTINCT ON (u.key) p_project, u.key, u.hash, u.run_id, 1
    FROM unnest(p_keys, hashes, p_ids) WITH ORDINALITY AS u (key, hash, run_id, ordinal)
    WHERE u.key IS NOT NULL ORDER BY u.key, u.ordinal
    ON CONFLICT DO NOTHING
    RETURNING k.run_id
  )
  SELECT coalesce(array_agg(w.run_id), '{}') INTO made FROM w;

  -- A statement of its own, for a snapshot that sees what a concurrent submit of the same key
  -- has committed.
  SELECT u.key, k.run_id, k.version INTO clash
  FROM unnest(p_keys, hashes) AS u (key, hash)
  CROSS JOIN LATERAL (
    SELECT c.* FROM ledger.command AS c WHERE c.project_id = p_project AND c.key = u.key OFFSET 0
  ) AS k
  WHERE k.content_hash <> u.hash LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'key % was used with other content', clash.key USING ERRCODE = 'RF409',
      DETAIL = json_build_object('key', clash.key, 'run_id', clash.run_id, 'version',
        clash.version);
  END IF;

  RETURN QUERY
  SELECT u.ordinal::int, coalesce(k.run_id, u.run_id), u.key IS NULL OR u.run_id = ANY (made)
  FROM unnest(p_keys, p_ids) WITH ORDINALITY AS u (key, run_id, ordinal)
  LEFT JOIN LATERAL (
    SELECT c.run_id FROM ledger.command AS c WHERE c.project_id = p_project AND c.key = u.key
      OFFSET 0
  ) AS k ON true;
END $$;
