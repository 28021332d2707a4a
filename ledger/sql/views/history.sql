-- Reads the events of a run after a version, in version order, with their payloads; on request
-- without its heartbeats, which may be nearly all of them.
CREATE OR REPLACE FUNCTION ledger.history(p_project text, p_run uuid, p_after int,
  p_heartbeats boolean) RETURNS SETOF ledger.entry
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_hashjoin = off
SET enable_mergejoin = off
SET enable_seqscan = off
SET jit = off
AS $$
BEGIN
  RETURN QUERY SELECT e.* FROM ledger.entry AS e
  WHERE e.project_id = p_project AND e.run_id = p_run AND e.version > p_after
    AND (p_heartbeats OR e.type <> 'lease.heartbeat') ORDER BY e.version;
END $$;
