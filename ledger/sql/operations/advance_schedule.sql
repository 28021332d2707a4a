-- Moves a schedule on from the due time that was seen; returns whether it did. It does not where
-- the schedule was changed, paused or moved since: several workers may do it at the same time.
-- Needs the right schedule. Locks: the schedule, SKIP LOCKED: another that holds it moves it on or
-- changes it.
CREATE OR REPLACE FUNCTION ledger.advance_schedule(
  p_project text, p_name text, p_updated_at timestamptz, p_seen timestamptz,
  p_next_at timestamptz, p_last_due timestamptz
) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  checked boolean := ledger.check_access(p_project, '{schedule}');
BEGIN
  checked := ledger.check_given('p_next_at', p_next_at IS NOT NULL);
  checked := ledger.check_times(ARRAY[p_next_at, p_last_due]);
  PERFORM FROM ledger.schedule AS known
  WHERE known.project_id = p_project AND known.name = p_name AND NOT known.paused
    AND known.updated_at = p_updated_at AND known.next_at = p_seen
  FOR UPDATE SKIP LOCKED;
  IF NOT FOUND THEN
    RETURN false;
  END IF;
  UPDATE ledger.schedule AS known SET next_at = p_next_at, last_due = p_last_due
  WHERE known.project_id = p_project AND known.name = p_name;
  RETURN true;
END $$;
