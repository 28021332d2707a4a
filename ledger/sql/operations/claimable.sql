-- Returns the runs of one range that may be claimed, in the order of claims, without locking them
-- (ledger/sql/operations/claim_ranges.sql says what a range is). PostgreSQL inlines the body.
-- Internal to the operations.
CREATE OR REPLACE FUNCTION ledger.claimable(
  p_project text, p_kind text, p_priority int, p_below int, p_run uuid, p_due timestamptz,
  p_moment timestamptz, p_most int
) RETURNS TABLE (priority int, run_id uuid)
LANGUAGE sql STABLE
AS $$
  (SELECT run.priority, run.run_id FROM ledger.run_state AS run
    WHERE p_due IS NULL AND run.project_id = p_project AND run.kind = p_kind
      AND run.available_at <= run.created_at
      AND (run.priority, run.run_id) >= (p_priority, p_run) AND run.priority < p_below
    ORDER BY run.priority, run.run_id LIMIT p_most)
  UNION ALL
  (SELECT run.priority, run.run_id FROM ledger.run_state AS run
    WHERE p_due IS NOT NULL AND run.project_id = p_project AND run.kind = p_kind
      AND run.available_at > run.created_at AND run.priority = p_priority
      AND (run.available_at, run.run_id) >= (p_due, p_run) AND run.available_at <= p_moment
    ORDER BY run.available_at, run.run_id LIMIT p_most)
$$;
