-- Reads one run by its id; what the policies of the tables would show, asked for once and not by
-- each table: nothing without one of the rights read, audit and work, and no content with work
-- alone.
CREATE OR REPLACE FUNCTION ledger.get_run(p_project text, p_run uuid) RETURNS SETOF ledger.run
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_hashjoin = off
SET enable_mergejoin = off
SET enable_seqscan = off
SET enable_bitmapscan = off
AS $$
BEGIN
  IF ledger.has_right(p_project, '{read,audit}') THEN
    RETURN QUERY SELECT seen.* FROM ledger.run AS seen
    WHERE seen.project_id = p_project AND seen.run_id = p_run;
  ELSIF ledger.has_right(p_project, '{work}') THEN
    RETURN QUERY SELECT run.*, NULL::text, NULL::text, NULL::text FROM ledger.run_state AS run
    WHERE run.project_id = p_project AND run.run_id = p_run;
  END IF;
END $$;
