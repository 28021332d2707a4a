-- Compiled from ledger/lifecycle.py by `make sql`; do not edit.
CREATE OR REPLACE FUNCTION ledger.legal(p_type text, p_from text, p_to text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
  SELECT CASE p_type
    WHEN 'lease.acquired' THEN coalesce((p_to = 'running' AND p_from IN ('pending', 'waiting_approval', 'waiting_tool')), false)
    WHEN 'lease.heartbeat' THEN coalesce((p_to IS NULL AND p_from IN ('running', 'waiting_approval', 'waiting_tool')), false)
    WHEN 'lease.released' THEN coalesce((p_to = 'pending' AND p_from IN ('running', 'waiting_approval', 'waiting_tool')), false)
    WHEN 'lease.expired' THEN coalesce((p_to = 'pending' AND p_from IN ('running', 'waiting_approval', 'waiting_tool')), false)
    WHEN 'step.completed' THEN coalesce((p_to IS NULL AND p_from IN ('running', 'waiting_approval', 'waiting_tool')), false)
    WHEN 'step.failed' THEN coalesce((p_to IS NULL AND p_from IN ('running', 'waiting_approval', 'waiting_tool')), false)
    WHEN 'tool.requested' THEN coalesce((p_to = 'waiting_tool' AND p_from IN ('running')), false)
    WHEN 'tool.completed' THEN coalesce((p_to IS NULL AND p_from IN ('waiting_tool')) OR (p_to = 'running' AND p_from IN ('waiting_tool')), false)
    WHEN 'tool.failed' THEN coalesce((p_to IS NULL AND p_from IN ('waiting_tool')) OR (p_to = 'running' AND p_from IN ('waiting_tool')), false)
    WHEN 'approval.requested' THEN coalesce((p_to = 'waiting_approval' AND p_from IN ('running')), false)
    WHEN 'approval.granted' THEN coalesce((p_to IS NULL AND p_from IN ('waiting_approval')) OR (p_to = 'running' AND p_from IN ('waiting_approval')), false)
    WHEN 'approval.rejected' THEN coalesce((p_to = 'cancelled' AND p_from IN ('waiting_approval')), false)
    WHEN 'approval.expired' THEN coalesce((p_to = 'cancelled' AND p_from IN ('waiting_approval')) OR (p_to = 'timeout' AND p_from IN ('waiting_approval')), false)
    WHEN 'run.completed' THEN coalesce((p_to = 'completed' AND p_from IN ('running')), false)
    WHEN 'run.failed' THEN coalesce((p_to = 'failed' AND p_from IN ('running', 'waiting_tool')), false)
    WHEN 'run.cancelled' THEN coalesce((p_to = 'cancelled' AND p_from IN ('pending', 'running', 'waiting_approval', 'waiting_tool')), false)
    WHEN 'run.timed_out' THEN coalesce((p_to = 'timeout' AND p_from IN ('running', 'waiting_approval')), false)
    WHEN 'run.retried' THEN coalesce((p_to = 'pending' AND p_from IN ('running', 'waiting_tool')), false)
    WHEN 'cancel.requested' THEN coalesce((p_to IS NULL AND p_from IN ('running', 'waiting_approval', 'waiting_tool')), false)
    WHEN 'note.added' THEN coalesce(p_to IS NULL, false)
    WHEN 'payload.erased' THEN coalesce(p_to IS NULL, false)
    WHEN 'write.refused' THEN coalesce(p_to IS NULL, false)
    ELSE p_to IS NULL AND p_from IN ('pending', 'running', 'waiting_approval', 'waiting_tool') AND split_part(p_type, '.', 1) NOT IN ('approval', 'cancel', 'lease', 'note', 'payload', 'run', 'step', 'tool', 'write')
  END
$$;
