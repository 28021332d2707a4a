-- Whether the credential has one of the rights in a project, now. Internal to the owner's
-- functions, which pin the search path.
CREATE OR REPLACE FUNCTION ledger.has_right(p_project text, p_rights text[]) RETURNS boolean
LANGUAGE plpgsql STABLE
AS $$
BEGIN
  IF ledger.is_owner() THEN
    RETURN true;
  END IF;
  PERFORM FROM ledger.access_grant AS granted
  WHERE granted.credential = ledger.credential() AND granted.project_id IN (p_project, '*')
    AND p_rights && granted.rights AND (granted.until IS NULL OR granted.until > ledger.now());
  RETURN FOUND;
END $$;
