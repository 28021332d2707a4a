-- Raises unless the session's credential has a right in a project and may speak for an actor: the
-- check that each function makes, for callers that want the answer beforehand.
CREATE OR REPLACE FUNCTION ledger.check_my_access(p_project text, p_right text, p_actor text)
  RETURNS void
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM ledger.check_access(p_project, ARRAY[p_right], ARRAY[p_actor]);
END $$;
