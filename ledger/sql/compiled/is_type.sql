-- Compiled from ledger/lifecycle.py by `make sql`; do not edit.
CREATE OR REPLACE FUNCTION ledger.is_type(p_type text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
  SELECT p_type = ANY (ARRAY[
    'approval.expired',
    'approval.granted',
    'approval.lapsed',
    'approval.rejected',
    'approval.requested',
    'approval.signed',
    'cancel.requested',
    'lease.acquired',
    'lease.expired',
    'lease.heartbeat',
    'lease.released',
    'note.added',
    'payload.erased',
    'run.cancelled',
    'run.completed',
    'run.failed',
    'run.retried',
    'run.submitted',
    'run.timed_out',
    'signal.received',
    'step.completed',
    'step.failed',
    'tool.completed',
    'tool.failed',
    'tool.requested',
    'write.refused'
  ])
  OR split_part(p_type, '.', 1) <> ALL (ARRAY['approval', 'cancel', 'lease', 'note', 'payload',
    'run', 'signal', 'step', 'tool', 'write'])
$$;
