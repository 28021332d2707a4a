-- Returns from where on a reaper looks at a kind, by its low-water mark: the instant before which
-- the clock ends no run, and the position up to which none waits for its cancel; without marks that
-- hold, the beginning (ledger/sql/operations/move_low_water.sql). Internal to the operations, whose
-- settings hold here. Locks: none.
CREATE OR REPLACE FUNCTION ledger.low_ends(
  p_project text, p_kind text, OUT ends_from timestamptz, OUT cancels_after bigint
)
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
BEGIN
  IF ledger.marks_hold(p_project, p_kind) THEN
    SELECT mark.ends_from, mark.cancels_after INTO ends_from, cancels_after
    FROM ledger.newest_mark(p_project, p_kind) AS mark;
  END IF;
  ends_from := coalesce(ends_from, '-infinity');
  cancels_after := coalesce(cancels_after, 0);
END $$;
