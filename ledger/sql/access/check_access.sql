-- Raises unless the credential has one of the rights in a project and may speak for each of the
-- actors. The first thing that each function asks; internal to the owner's functions. Without any
-- right in the project the answer is RF404, the same for a project that does not exist; else RF403.
CREATE OR REPLACE FUNCTION ledger.check_access(p_project text, p_rights text[],
  p_actors text[] DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql STABLE
AS $$
BEGIN
  IF NOT ledger.is_owner() THEN
    PERFORM ledger.check_grants(p_project, p_rights, p_actors);
  END IF;
  RETURN true;
END $$;
