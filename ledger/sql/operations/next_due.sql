-- When the clock ends the next run after p_after: its deadline, its wait, or the cancel that was
-- asked of it; null if it ends none within a minute. A reaper sleeps until then, and asks again
-- within a minute, from its last sweep on: behind an old snapshot it walks the entries of ended
-- runs whose times lie between, not those of all that ended early. Leases end by another index and
-- are swept for. Locks nothing.
CREATE OR REPLACE FUNCTION ledger.next_due(p_project text, p_after timestamptz)
RETURNS timestamptz
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_sort = off
SET jit = off
AS $$
DECLARE
  checked boolean := ledger.check_access(p_project, '{work,read}');
  -- a variable, because an index is not searched for a volatile function
  horizon timestamptz := ledger.now() + interval '1 min';
BEGIN
  RETURN (
    SELECT least(run.deadline, run.wait_until, CASE WHEN run.token IS NULL
      THEN run.cancel_requested_at END)
    FROM ledger.run_state AS run
    WHERE run.project_id = p_project AND run.completed_at IS NULL
      AND num_nonnulls(run.deadline, run.wait_until, run.cancel_requested_at) > 0
      AND least(run.deadline, run.wait_until, CASE WHEN run.token IS NULL
        THEN run.cancel_requested_at END) > p_after
      AND least(run.deadline, run.wait_until, CASE WHEN run.token IS NULL
        THEN run.cancel_requested_at END) <= horizon
    ORDER BY least(run.deadline, run.wait_until, CASE WHEN run.token IS NULL
      THEN run.cancel_requested_at END)
    LIMIT 1
  );
END $$;
