-- Compiled from projections/state/run_state.py by `make sql`; do not edit.
-- Compares run_state with the fold of the events, in one snapshot; no row means no drift.
-- Runs whose events are archived are left out: ledger.drift_events compares those.
CREATE OR REPLACE FUNCTION ledger.drift_run_state(p_project text, p_from uuid, p_to uuid)
RETURNS TABLE (run_id uuid, have jsonb, want jsonb)
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
  SELECT coalesce((h.r).run_id, (w.r).run_id), to_jsonb(h.r), to_jsonb(w.r)
  FROM (SELECT r FROM ledger.run_state AS r WHERE r.project_id = p_project AND r.run_id BETWEEN p_from AND p_to
    AND NOT EXISTS (SELECT FROM ledger.archive AS a
      WHERE a.detached AND r.run_id >= a.first AND r.run_id < a.beyond)) AS h
  FULL JOIN (SELECT r FROM ledger.rebuild_run_state(p_project, p_from, p_to) AS r) AS w
    ON (h.r).run_id = (w.r).run_id
  WHERE h.r IS DISTINCT FROM w.r
$$;
