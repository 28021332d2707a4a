-- When the clock ends the next run after p_after: its deadline or its wait; null if it ends none
-- within a minute. A run that was let go although its cancel was asked is due from its last event
-- on. A reaper sleeps until then, and asks again within a minute, from its last sweep on: behind an
-- old snapshot it walks the entries of ended runs whose times lie between, not those of all that
-- ended early, nor those before the low-water mark of the kind. Leases end by another index and are
-- swept for. Locks nothing.
CREATE OR REPLACE FUNCTION ledger.next_due(p_project text, p_after timestamptz)
RETURNS timestamptz
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_hashjoin = off
SET enable_mergejoin = off
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
    WITH known AS MATERIALIZED (
      SELECT kind.kind, low.ends_from, low.cancels_after
      FROM (SELECT DISTINCT kind.kind FROM ledger.kind WHERE kind.project_id = p_project) AS kind
      CROSS JOIN LATERAL ledger.low_ends(p_project, kind.kind) AS low
    )
    SELECT min(run.ends_at) FROM known
    CROSS JOIN LATERAL (
      (SELECT least(run.deadline, run.wait_until) AS ends_at FROM ledger.run_state AS run
        WHERE run.project_id = p_project AND run.kind = known.kind AND run.completed_at IS NULL
          AND num_nonnulls(run.deadline, run.wait_until) > 0
          AND least(run.deadline, run.wait_until) >= known.ends_from
          AND least(run.deadline, run.wait_until) > p_after
          AND least(run.deadline, run.wait_until) <= horizon
        ORDER BY least(run.deadline, run.wait_until) LIMIT 1)
      UNION ALL
      (SELECT cancel.updated_at
        FROM ledger.cancels(p_project, known.kind, known.cancels_after) AS cancel
        WHERE cancel.updated_at > p_after LIMIT 1)
    ) AS run
  );
END $$;
