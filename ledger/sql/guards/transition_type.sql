-- Names the event that takes a run from one state to another; null where no worker or person can
-- (ledger/lifecycle.py). A person who answers an approval has no token: their no is a rejection,
-- a worker's own ending is a cancellation. A lease never grants an approval: its holder asked.
CREATE OR REPLACE FUNCTION ledger.transition_type(p_from text, p_to text, p_error text, p_token int)
  RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
  SELECT CASE p_to
    WHEN 'completed' THEN 'run.completed'
    WHEN 'failed' THEN 'run.failed'
    WHEN 'timeout' THEN 'run.timed_out'
    WHEN 'waiting_tool' THEN 'tool.requested'
    WHEN 'waiting_approval' THEN 'approval.requested'
    WHEN 'cancelled' THEN
      CASE WHEN p_from = 'waiting_approval' AND p_token IS NULL THEN 'approval.rejected'
        ELSE 'run.cancelled' END
    WHEN 'running' THEN
      CASE p_from WHEN 'waiting_approval' THEN CASE WHEN p_token IS NULL THEN 'approval.granted' END
        WHEN 'waiting_tool' THEN CASE WHEN p_error IS NULL THEN 'tool.completed'
          ELSE 'tool.failed' END END
  END
$$;
