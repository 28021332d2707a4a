-- Looks up idempotency keys: which event each key named first, and whether the content is the same.
-- A key whose content was erased has lost its salt, and counts as the same by its name alone. No
-- event is read, so keys also answer for archived runs. Changes nothing.
CREATE OR REPLACE FUNCTION ledger.commands(
  p_project text, p_runs uuid[], p_whats text[], p_parks boolean[], p_names text[],
  p_error_codes text[], p_bodies text[], p_costs numeric[], p_steps int[], p_sha256s bytea[],
  p_waits interval[], p_wait_outcomes text[], p_keys text[]
) RETURNS TABLE (key text, run_id uuid, version int, hash bytea, same boolean)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_hashjoin = off
SET enable_mergejoin = off
SET enable_seqscan = off
SET enable_memoize = off
SET enable_bitmapscan = off
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
  checked boolean := ledger.check_access(p_project, '{work,submit,decide}');
BEGIN
  checked := ledger.check_count(greatest(cardinality(p_runs), cardinality(p_keys)));
  checked := ledger.check_costs(p_costs);
  RETURN QUERY
  SELECT asked.key, known.run_id, known.version, known.hash,
    known.hash IS NOT NULL AND (known.salt IS NULL
      OR known.content_hash = ledger.payload_hash(known.salt, ledger.command_text(asked.run_id,
        asked.what, asked.park, asked.name, asked.error_code, asked.body, asked.cost, asked.steps,
        asked.sha256, asked.wait, asked.wait_outcome)))
  FROM unnest(p_runs, p_whats, p_parks, p_names, p_error_codes, p_bodies, p_costs, p_steps,
    p_sha256s, p_waits, p_wait_outcomes, p_keys)
    AS asked (run_id, what, park, name, error_code, body, cost, steps, sha256, wait, wait_outcome,
      key)
  CROSS JOIN LATERAL (
    SELECT command.* FROM ledger.command AS command
    WHERE command.project_id = p_project AND command.key = asked.key OFFSET 0
  ) AS known;
END $$;
