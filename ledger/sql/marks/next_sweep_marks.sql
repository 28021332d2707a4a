-- Computes the marks from which reapers will search a kind:
--   ends_from      the first end of a deadline or a wait, of an open run, at or after the old mark;
--                  p_moment at the latest
--   cancels_after  just before the first run without a holder that waits to be cancelled; at the
--                  latest the position that the last move had seen
--   older_parked   the runs parked for a tool at or before that position, which the mark lists
-- Runs of p_late, which open transactions brought after the old mark was set, count wherever they
-- lie. Internal to ledger.move_low_water. Locks: none.
CREATE OR REPLACE FUNCTION ledger.next_sweep_marks(
  p_old ledger.low_water, p_late uuid[], p_moment timestamptz,
  OUT ends_from timestamptz, OUT cancels_after bigint, OUT older_parked uuid[]
)
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
BEGIN
  WITH late AS MATERIALIZED (
    SELECT run.* FROM unnest(p_late) AS brought (run_id)
    CROSS JOIN LATERAL (
      SELECT run.* FROM ledger.run_state AS run
      WHERE run.project_id = p_old.project_id AND run.run_id = brought.run_id OFFSET 0
    ) AS run
    WHERE run.kind = p_old.kind AND run.completed_at IS NULL
  )
  SELECT least(p_moment, (
      SELECT least(run.deadline, run.wait_until) FROM ledger.run_state AS run
      WHERE run.project_id = p_old.project_id AND run.kind = p_old.kind
        AND run.completed_at IS NULL AND num_nonnulls(run.deadline, run.wait_until) > 0
        AND least(run.deadline, run.wait_until) >= p_old.ends_from
        AND least(run.deadline, run.wait_until) < p_moment
      ORDER BY least(run.deadline, run.wait_until) LIMIT 1
    ), (
      SELECT min(least(late.deadline, late.wait_until)) FROM late
    )),
    least(p_old.seen_position, (
      SELECT run.moved_position - 1
      FROM ledger.cancels(p_old.project_id, p_old.kind, p_old.cancels_after) AS run
      ORDER BY run.moved_position LIMIT 1
    ), (
      SELECT min(late.moved_position) - 1 FROM late
      WHERE late.token IS NULL AND late.cancel_requested_at IS NOT NULL
    )),
    ARRAY(
      SELECT run.run_id FROM ledger.parked(p_old.project_id, p_old.kind, true) AS run
      WHERE run.moved_position <= p_old.seen_position
      UNION
      SELECT late.run_id FROM late
      WHERE late.state = 'waiting_tool' AND late.token IS NULL AND late.available_at IS NULL
        AND late.cancel_requested_at IS NULL AND late.moved_position <= p_old.seen_position
    )
  INTO ends_from, cancels_after, older_parked;
END $$;
