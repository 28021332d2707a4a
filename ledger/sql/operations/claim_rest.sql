-- Locks up to p_limit runs one by one, oldest first, skipping those that other claims have locked.
-- A claim of several ranges calls it when other claims took runs that it had counted on. Returns
-- each run as a range of its own (ledger/sql/operations/claim_ranges.sql). Limited kinds are left
-- out: their claims take turns. Internal to ledger.claim, whose settings hold here. Locks:
-- run_state rows, SKIP LOCKED.
CREATE OR REPLACE FUNCTION ledger.claim_rest(
  p_project text, p_limit int, p_moment timestamptz, p_limited text[],
  p_kinds text[], p_priorities int[], p_belows int[], p_runs uuid[], p_dues timestamptz[],
  OUT kinds text[], OUT priorities int[], OUT belows int[], OUT runs uuid[],
  OUT dues timestamptz[], OUT quotas int[], OUT counted int
)
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
BEGIN
  SELECT array_agg(locked.kind), array_agg(locked.priority), array_agg(locked.priority + 1),
    array_agg(locked.run_id), array_agg(locked.due), array_agg(1), count(*)
  INTO kinds, priorities, belows, runs, dues, quotas, counted
  FROM (
    SELECT oldest.kind, oldest.priority, oldest.run_id, locked.due FROM (
      SELECT range.kind, run.priority, run.run_id
      FROM unnest(p_kinds, p_priorities, p_belows, p_runs, p_dues)
        AS range (kind, priority, below, run, due)
      CROSS JOIN LATERAL ledger.claimable(p_project, range.kind, range.priority, range.below,
        range.run, range.due, p_moment, 2 * p_limit) AS run
      WHERE range.kind <> ALL (p_limited)
      ORDER BY run.priority, run.run_id OFFSET 0
    ) AS oldest
    CROSS JOIN LATERAL (
      SELECT CASE WHEN run.available_at > run.created_at THEN run.available_at END AS due
      FROM ledger.run_state AS run
      WHERE run.project_id = p_project AND run.run_id = oldest.run_id
        AND run.available_at IS NOT NULL
      FOR UPDATE SKIP LOCKED
    ) AS locked
    LIMIT p_limit
  ) AS locked;
END $$;
