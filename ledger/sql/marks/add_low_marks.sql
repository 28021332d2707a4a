-- Appends the stored low-water marks of kinds to the marks that a claim was called with, which lie
-- further on where the caller has any (ledger/sql/marks/move_low_water.sql). Marks of runs
-- that were put off or given back are left out unless p_returning: there are no such runs. Internal
-- to ledger.claim, whose settings hold here. Locks: none.
CREATE OR REPLACE FUNCTION ledger.add_low_marks(
  p_project text, p_kinds text[], p_returning boolean,
  INOUT mark_kinds text[], INOUT mark_priorities int[], INOUT mark_runs uuid[],
  INOUT mark_dues timestamptz[]
)
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
BEGIN
  WITH mark AS MATERIALIZED (
    SELECT place.* FROM unnest(p_kinds) AS named (kind)
    CROSS JOIN LATERAL ledger.newest_mark(p_project, named.kind) AS mark
    CROSS JOIN LATERAL (
      SELECT named.kind, waiting.priority, waiting.run, NULL::timestamptz AS due
      FROM unnest(mark.priorities, mark.runs) AS waiting (priority, run)
      UNION ALL
      SELECT named.kind, back.priority, NULL, back.due
      FROM unnest(mark.back_priorities, mark.dues) AS back (priority, due) WHERE p_returning
    ) AS place
  )
  SELECT mark_kinds || array_agg(mark.kind), mark_priorities || array_agg(mark.priority),
    mark_runs || array_agg(mark.run), mark_dues || array_agg(mark.due)
  INTO mark_kinds, mark_priorities, mark_runs, mark_dues FROM mark;
END $$;
