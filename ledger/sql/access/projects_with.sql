-- The projects in which the session's credential has one of these rights now; null: in all. For the
-- policies of the tables, and for functions that read across projects. No argument: any right.
CREATE OR REPLACE FUNCTION ledger.projects_with(VARIADIC p_rights text[] DEFAULT '{}')
  RETURNS text[]
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  found text[];
BEGIN
  IF ledger.is_owner() THEN
    RETURN NULL;
  END IF;
  SELECT coalesce(array_agg(granted.project_id), '{}') INTO found
  FROM ledger.access_grant AS granted
  WHERE granted.credential = ledger.credential() AND (p_rights = '{}' OR p_rights && granted.rights)
    AND (granted.until IS NULL OR granted.until > ledger.now());
  RETURN CASE WHEN '*' <> ALL (found) THEN found END;
END $$;
