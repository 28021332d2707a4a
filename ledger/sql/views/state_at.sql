-- Folds a run's events up to a version or an instant: the run as it was then. No row before its
-- first event.
CREATE OR REPLACE FUNCTION ledger.state_at(
  p_project text, p_run uuid, p_version int DEFAULT NULL, p_time timestamptz DEFAULT NULL
) RETURNS SETOF ledger.run
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
  RETURN QUERY SELECT run.*, ledger.content_part(first.body, 'input'),
    ledger.content_part(outcome.body, 'output'), ledger.content_part(outcome.body, 'error_detail')
  FROM ledger.rebuild_run_state(p_project, p_run, p_run, p_version, p_time) AS run
  LEFT JOIN ledger.payload AS first ON first.project_id = p_project AND first.run_id = p_run
    AND first.version = 1
  LEFT JOIN ledger.payload AS outcome ON outcome.project_id = p_project AND outcome.run_id = p_run
    AND outcome.version = run.outcome_version;
END $$;
