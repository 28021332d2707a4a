-- Pauses, resumes or limits a kind: appends one event, numbered from 1 for each kind; a trigger
-- folds it into kind_state. A kind that is new needs p_ahead. Locks: the project's list of the
-- control history, and the kind's row of kind_state, which no claim locks.
CREATE OR REPLACE FUNCTION ledger.change_kind(
  p_project text, p_actor text, p_kind text, p_type text, p_max_running int DEFAULT NULL,
  p_reason text DEFAULT NULL, p_ahead boolean DEFAULT false
) RETURNS TABLE (kind text, number int, paused boolean, max_running int, updated_at timestamptz)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  checked boolean;
BEGIN
  checked := ledger.check_access(p_project, '{admin}', ARRAY[p_actor]);
  checked := ledger.check_project(p_project);
  checked := ledger.check_given('p_actor', p_actor IS NOT NULL);
  checked := ledger.check_given('p_kind', p_kind IS NOT NULL);
  checked := ledger.check_given('p_type', p_type IS NOT NULL);
  checked := ledger.check_texts(ARRAY[p_actor, p_kind], 200, true);
  checked := ledger.check_texts(ARRAY[p_reason], 2000);
  IF p_type NOT IN ('kind.paused', 'kind.resumed', 'kind.limited') OR p_max_running < 1
    OR p_max_running IS NOT NULL AND p_type <> 'kind.limited' THEN
    RAISE EXCEPTION 'a kind is paused, resumed, or limited to at least one run at a time'
      USING ERRCODE = '22023';
  END IF;
  checked := ledger.check_kind(p_project, p_kind, p_ahead);
  PERFORM ledger.lock_control(p_project);
  INSERT INTO ledger.kind_event (project_id, kind, number, recorded_at, actor, type, max_running,
    reason)
  SELECT p_project, p_kind, coalesce(max(change.number), 0) + 1,
    greatest(ledger.now(), max(change.recorded_at)), p_actor, p_type,
    p_max_running, p_reason
  FROM ledger.kind_event AS change WHERE change.project_id = p_project AND change.kind = p_kind;
  RETURN QUERY
  SELECT state.kind, state.number, state.paused, state.max_running, state.updated_at
  FROM ledger.kind_state AS state
  WHERE state.project_id = p_project AND state.kind = p_kind;
END $$;
