-- Returns the leases of a kind that are held, in no order. Those after the kind's low-water mark
-- are found by the index, the older ones that the mark names by their keys
-- (ledger/sql/marks/move_low_water.sql); without p_marked, all by the index. PostgreSQL
-- inlines the body. Internal to the operations, whose settings hold here. Locks: none.
CREATE OR REPLACE FUNCTION ledger.leases(p_project text, p_kind text, p_marked boolean)
RETURNS TABLE (
  run_id uuid, priority int, worker_id text, token int, moved_position bigint,
  lease_until timestamptz, heartbeat_at timestamptz, attempt_count int, max_attempts int
)
LANGUAGE sql STABLE
AS $$
  SELECT run.run_id, run.priority, run.worker_id, run.token, run.moved_position, run.lease_until,
    run.heartbeat_at, run.attempt_count, run.max_attempts
  FROM ledger.newest_mark(p_project, p_kind) AS mark
  CROSS JOIN LATERAL unnest(mark.older_leases) AS older (run_id)
  CROSS JOIN LATERAL (
    SELECT run.* FROM ledger.run_state AS run
    WHERE run.project_id = p_project AND run.run_id = older.run_id OFFSET 0
  ) AS run
  WHERE p_marked AND run.kind = p_kind AND run.token IS NOT NULL
    AND run.moved_position <= mark.leases_after
  UNION ALL
  SELECT run.run_id, run.priority, run.worker_id, run.token, run.moved_position, run.lease_until,
    run.heartbeat_at, run.attempt_count, run.max_attempts
  FROM ledger.run_state AS run
  WHERE run.project_id = p_project AND run.kind = p_kind AND run.token IS NOT NULL
    AND run.moved_position > coalesce((
      SELECT mark.leases_after FROM ledger.newest_mark(p_project, p_kind) AS mark
      WHERE p_marked), 0)
$$;
