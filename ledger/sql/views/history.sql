-- Reads the events of a run, in version order, with their payloads: all, or those after a version;
-- with p_heartbeats => false without its heartbeats, which may be nearly all of them; at most
-- p_limit. Needs the right read in the project; the holder of the run's lease needs work only.
CREATE OR REPLACE FUNCTION ledger.history(
  p_project text, p_run uuid, p_after int DEFAULT NULL, p_heartbeats boolean DEFAULT NULL,
  p_limit int DEFAULT NULL
) RETURNS SETOF ledger.entry
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_hashjoin = off
SET enable_mergejoin = off
SET enable_seqscan = off
SET jit = off
AS $$
BEGIN
  IF NOT (ledger.has_right(p_project, '{read}')
    OR ledger.has_right(p_project, '{work}') AND EXISTS (
      SELECT FROM ledger.run_state AS run WHERE run.project_id = p_project AND run.run_id = p_run
        AND run.token IS NOT NULL AND run.lease_credential = ledger.credential())) THEN
    PERFORM ledger.check_access(p_project, '{read}');
  END IF;
  RETURN QUERY SELECT entry.* FROM ledger.entry
  WHERE entry.project_id = p_project AND entry.run_id = p_run
    AND entry.version > coalesce(p_after, 0)
    AND (p_heartbeats IS NOT FALSE OR entry.type <> 'lease.heartbeat') ORDER BY entry.version
  LIMIT p_limit;
  IF NOT FOUND THEN -- the owner may read projects that do not exist
    PERFORM ledger.check_access(p_project, '{read,work}');
  END IF;
END $$;
