-- Settles the idempotency keys of a submit: for each command the run it stands for, and whether
-- that run is to be made. Of what a command says a hash under a salt of its key is kept; a key
-- whose content was erased has lost its salt and answers by its name. Internal to ledger.submit.
-- Locks: rows of `command`, in key order.
CREATE OR REPLACE FUNCTION ledger.submit_keys(
  p_project text, p_ids uuid[], p_kinds text[], p_inputs text[], p_keys text[], p_priorities int[],
  p_delays interval[],
  p_max_attempts int[], p_deadlines timestamptz[], p_deadlines_in interval[], p_tags text[],
  p_seed bytea
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
  contents text[];
  made uuid[];
  clash record;
BEGIN
  SELECT array_agg(jsonb_build_array(u.kind, u.input, u.priority, extract(epoch FROM u.delay),
    u.max_attempts, extract(epoch FROM u.deadline), extract(epoch FROM u.deadline_in),
    u.tags)::text ORDER BY u.ordinal)
  INTO contents
  FROM unnest(p_kinds, p_inputs, p_priorities, p_delays, p_max_attempts, p_deadlines,
    p_deadlines_in, p_tags) WITH ORDINALITY
    AS u (kind, input, priority, delay, max_attempts, deadline, deadline_in, tags, ordinal);

  WITH w AS (
    INSERT INTO ledger.command AS k (project_id, key, salt, content_hash, run_id, version)
    SELECT p_project, u.key, u.salt, ledger.payload_hash(u.salt, u.content), u.run_id, 1
    FROM (
      SELECT DISTINCT ON (u.key) u.*, sha256(p_seed || convert_to(u.key, 'UTF8')) AS salt
      FROM unnest(p_keys, contents, p_ids) WITH ORDINALITY AS u (key, content, run_id, ordinal)
      WHERE u.key IS NOT NULL ORDER BY u.key, u.ordinal
    ) AS u
    ORDER BY u.key
    ON CONFLICT DO NOTHING
    RETURNING k.run_id
  )
  SELECT coalesce(array_agg(w.run_id), '{}') INTO made FROM w;

  -- A statement of its own, for a snapshot that sees what a concurrent submit of the same key
  -- has committed.
  SELECT u.key, k.run_id, k.version INTO clash
  FROM unnest(p_keys, contents) AS u (key, content)
  CROSS JOIN LATERAL (
    SELECT c.* FROM ledger.command AS c WHERE c.project_id = p_project AND c.key = u.key OFFSET 0
  ) AS k
  WHERE k.content_hash <> ledger.payload_hash(k.salt, u.content) LIMIT 1;
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
