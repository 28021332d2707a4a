-- Folds a run's events up to a version or an instant: the run as it was then. No row before its
-- first event.
CREATE OR REPLACE FUNCTION ledger.state_at(p_project text, p_run uuid, p_version int,
  p_time timestamptz)
RETURNS SETOF ledger.run
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_hashjoin = off
SET enable_mergejoin = off
SET enable_seqscan = off
SET enable_bitmapscan = off
SET jit = off
AS $$
BEGIN
  RETURN QUERY SELECT s.*, ledger.content_part(i.body, 'input'),
  ledger.content_part(o.body, 'output'), ledger.content_part(o.body, 'error_detail')
  FROM ledger.rebuild_run_state(p_project, p_run, p_run, p_version, p_time) AS s
  LEFT JOIN ledger.payload AS i ON i.project_id = p_project AND i.run_id = p_run AND i.version = 1
  LEFT JOIN ledger.payload AS o ON o.project_id = p_project AND o.run_id = p_run
    AND o.version = s.outcome_version;
END $$;
