-- Whether the credential has a right in a project, now. Internal to the owner's functions.
CREATE OR REPLACE FUNCTION ledger.has_right(p_project text, p_right text) RETURNS boolean
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN ledger.is_owner() OR EXISTS (
    SELECT FROM ledger.access_grant AS granted
    WHERE granted.credential = ledger.credential() AND granted.project_id IN (p_project, '*')
      AND p_right = ANY (granted.rights)
      AND (granted.until IS NULL OR granted.until > ledger.now()));
END $$;
