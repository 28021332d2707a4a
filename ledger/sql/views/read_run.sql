-- Reads one run. Volatile, so that in a statement that also writes it sees what the write did.
CREATE OR REPLACE FUNCTION ledger.read_run(p_project text, p_run uuid) RETURNS SETOF ledger.run
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_hashjoin = off
SET enable_mergejoin = off
SET enable_seqscan = off
SET jit = off
AS $$
BEGIN
  RETURN QUERY SELECT r.* FROM ledger.run AS r WHERE r.project_id = p_project AND r.run_id = p_run;
END $$;
