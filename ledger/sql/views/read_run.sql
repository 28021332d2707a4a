-- Reads one run that a write returns; without its content for a credential that may submit, work or
-- decide, but not read.
-- Volatile, so that in a statement that also writes it sees what the write did.
CREATE OR REPLACE FUNCTION ledger.read_run(p_project text, p_run uuid) RETURNS SETOF ledger.run
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_hashjoin = off
SET enable_mergejoin = off
SET enable_seqscan = off
SET enable_bitmapscan = off
AS $$
BEGIN
  IF ledger.has_right(p_project, '{read}') THEN
    RETURN QUERY SELECT seen.* FROM ledger.run AS seen
    WHERE seen.project_id = p_project AND seen.run_id = p_run;
  ELSIF ledger.check_access(p_project, '{submit,work,decide}') THEN
    RETURN QUERY SELECT run.*, NULL::text, NULL::text, NULL::text FROM ledger.run_state AS run
    WHERE run.project_id = p_project AND run.run_id = p_run;
  END IF;
  IF NOT FOUND THEN -- the owner may read projects that do not exist
    PERFORM ledger.check_access(p_project, '{read,submit,work,decide}');
  END IF;
END $$;
