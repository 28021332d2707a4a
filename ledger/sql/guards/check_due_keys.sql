-- Refuses a key that begins with `schedule:` (RF403) to a login without the right schedule: such a
-- key is of a due time, and its run would be taken for the schedule's own. Returns true, so that a
-- caller can assign it. Internal to ledger.submit_keys and ledger.record_keys.
CREATE OR REPLACE FUNCTION ledger.check_due_keys(p_project text, p_keys text[]) RETURNS boolean
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF EXISTS (
    SELECT FROM unnest(p_keys) AS asked (key) WHERE starts_with(asked.key, 'schedule:')
  ) AND NOT ledger.has_right(p_project, '{schedule}') THEN
    RAISE EXCEPTION '% lacks the right schedule, which a key that begins with schedule: takes',
      ledger.credential() USING ERRCODE = 'RF403', DETAIL = 'access';
  END IF;
  RETURN true;
END $$;
