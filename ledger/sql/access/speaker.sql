-- Returns the name under which a session acts where a call names no actor; null for the owner, who
-- may act as anybody.
CREATE OR REPLACE FUNCTION ledger.speaker() RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT CASE WHEN NOT ledger.is_owner() THEN ledger.credential() END
$$;
