-- Returns the runs of a kind that no worker holds and that somebody asked to cancel, those moved
-- after a position, in the order of their index, so that every plan uses it. PostgreSQL inlines the
-- body. Internal to the operations, whose settings hold here. Locks: none.
CREATE OR REPLACE FUNCTION ledger.cancels(p_project text, p_kind text, p_after bigint)
RETURNS TABLE (run_id uuid, moved_position bigint, updated_at timestamptz)
LANGUAGE sql STABLE
AS $$
  SELECT run.run_id, run.moved_position, run.updated_at FROM ledger.run_state AS run
  WHERE run.project_id = p_project AND run.kind = p_kind
    AND (run.cancel_requested_at IS NOT NULL) = true AND run.moved_position > p_after
    AND run.token IS NULL AND run.completed_at IS NULL
  ORDER BY run.project_id, run.kind, (run.cancel_requested_at IS NOT NULL), run.moved_position
$$;
