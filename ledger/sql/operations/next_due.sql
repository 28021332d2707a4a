-- Returns when the next deadline or wait of a run ends after p_after, or null if none ends within a
-- minute: a reaper sleeps until then, and asks again after a minute at the latest. A run whose
-- worker gave up its lease after a cancel was asked counts as due since its last event. Ends of
-- leases are not looked for: a reaper sweeps for them at its interval. The search starts at
-- p_after, the reaper's last sweep, and at the kind's low-water mark, so that behind an old
-- snapshot it reads few entries of ended runs. Locks: none.
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
      CROSS JOIN LATERAL ledger.sweep_start(p_project, kind.kind) AS low
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
