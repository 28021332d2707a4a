-- The projects whose rows a session sees by one of these rights; for one that sees all of them,
-- every project, and * for what concerns them all. Never null, so that a policy is one comparison
-- that an index is searched by: rows of other projects are then not even counted by EXPLAIN. Each
-- statement of a login asks it once for each table, so it does not call ledger.projects_with.
-- The session's own project, of the setting runfold.project, comes first: a scan of a whole table
-- compares each row with one project after another. No setting adds one.
CREATE OR REPLACE FUNCTION ledger.projects_seen(VARIADIC p_rights text[]) RETURNS text[]
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  found text[];
  own CONSTANT text := current_setting('runfold.project', true);
BEGIN
  IF NOT ledger.is_owner() THEN
    SELECT coalesce(array_agg(granted.project_id), '{}') INTO found
    FROM ledger.access_grant AS granted
    WHERE granted.credential = ledger.credential()
      AND (p_rights = '{}' OR p_rights && granted.rights)
      AND (granted.until IS NULL OR granted.until > ledger.now());
  END IF;
  IF found IS NULL OR '*' = ANY (found) THEN
    found := ARRAY(SELECT project.project_id::text FROM ledger.project) || ARRAY['*'];
  END IF;
  IF cardinality(found) > 1 AND own = ANY (found) THEN
    RETURN ARRAY[own] || found;
  END IF;
  RETURN found;
END $$;
