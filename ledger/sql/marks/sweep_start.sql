-- Returns where a reaper starts to search a kind: no deadline or wait of an open run ends before
-- `ends_from`, and no run that was moved at or before the position `cancels_after` waits to be
-- cancelled without a holder. Both come from the kind's low-water mark; where that may not be used
-- (ledger.marks_hold), the search starts at the beginning. Internal to the operations, whose
-- settings hold here. Locks: none.
CREATE OR REPLACE FUNCTION ledger.sweep_start(
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
