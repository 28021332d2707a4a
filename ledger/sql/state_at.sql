-- Folds a run's events up to a version or an instant: the run as it was then. No row before its first event.
CREATE OR REPLACE FUNCTION ledger.state_at(p_project text, p_run uuid, p_version int, p_time timestamptz)
RETURNS SETOF ledger.run
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
  SELECT s.*,
    ledger.content(s.project_id, s.run_id, 1, 'input'),
    ledger.content(s.project_id, s.run_id, s.outcome_version, 'output'),
    ledger.content(s.project_id, s.run_id, s.outcome_version, 'error_detail')
  FROM ledger.rebuild_run_state(p_project, p_run, p_run, p_version, p_time) AS s
$$;
