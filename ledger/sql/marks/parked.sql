-- Returns the runs of a kind that are parked for a tool and not to be cancelled, in no order. Those
-- after the kind's low-water mark are found by the index, the older ones that the mark names by
-- their keys (ledger/sql/marks/move_low_water.sql); without p_marked, all by the index.
-- PostgreSQL inlines the body. Internal to the operations, whose settings hold here. Locks: none.
CREATE OR REPLACE FUNCTION ledger.parked(p_project text, p_kind text, p_marked boolean)
RETURNS TABLE (run_id uuid, moved_position bigint)
LANGUAGE sql STABLE
AS $$
  SELECT run.run_id, run.moved_position
  FROM ledger.newest_mark(p_project, p_kind) AS mark
  CROSS JOIN LATERAL unnest(mark.older_parked) AS older (run_id)
  CROSS JOIN LATERAL (
    SELECT run.* FROM ledger.run_state AS run
    WHERE run.project_id = p_project AND run.run_id = older.run_id OFFSET 0
  ) AS run
  WHERE p_marked AND run.kind = p_kind AND run.state = 'waiting_tool' AND run.token IS NULL
    AND run.available_at IS NULL AND run.cancel_requested_at IS NULL
    AND run.moved_position <= mark.parked_after
  UNION ALL
  SELECT run.run_id, run.moved_position FROM ledger.run_state AS run
  WHERE run.project_id = p_project AND run.kind = p_kind AND run.state = 'waiting_tool'
    AND run.token IS NULL AND run.available_at IS NULL AND run.completed_at IS NULL
    AND (run.cancel_requested_at IS NOT NULL) = false
    AND run.moved_position > coalesce((
      SELECT mark.parked_after FROM ledger.newest_mark(p_project, p_kind) AS mark
      WHERE p_marked), 0)
$$;
