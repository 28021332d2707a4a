-- Compiled from projections/state/run_state.py by `make sql`; do not edit.
-- Compares run_state with the fold of all events of these runs, which are handed over.
CREATE OR REPLACE FUNCTION ledger.drift_events(
  p_project text, p_from uuid, p_to uuid, p_events json
)
RETURNS TABLE (run_id uuid, have jsonb, want jsonb)
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
  SELECT coalesce((h.r).run_id, (w.r).run_id), to_jsonb(h.r), to_jsonb(w.r)
  FROM (SELECT r FROM ledger.run_state AS r WHERE r.project_id = p_project AND r.run_id BETWEEN p_from AND p_to) AS h
  FULL JOIN (SELECT r FROM ledger.fold_events(p_events) AS r) AS w ON (h.r).run_id = (w.r).run_id
  WHERE h.r IS DISTINCT FROM w.r
$$;
