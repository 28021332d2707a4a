-- Returns the type of the event that takes a run from one state to another; null where no
-- transition does (ledger/lifecycle.py). A run leaves waiting_approval by an end that its worker
-- writes, or by a decision, which is not a transition (ledger.decide).
CREATE OR REPLACE FUNCTION ledger.transition_type(p_from text, p_to text, p_error text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
  SELECT CASE p_to
    WHEN 'completed' THEN 'run.completed'
    WHEN 'failed' THEN 'run.failed'
    WHEN 'timeout' THEN 'run.timed_out'
    WHEN 'waiting_tool' THEN 'tool.requested'
    WHEN 'waiting_approval' THEN 'approval.requested'
    WHEN 'cancelled' THEN 'run.cancelled'
    WHEN 'running' THEN
      CASE p_from WHEN 'waiting_tool' THEN
        CASE WHEN p_error IS NULL THEN 'tool.completed' ELSE 'tool.failed' END END
  END
$$;
