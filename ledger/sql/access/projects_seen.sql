-- The projects whose rows a session sees by one of these rights; for one that sees all of them,
-- every project, and * for what concerns them all. Never null, so that a policy is one comparison
-- that an index is searched by: rows of other projects are then not even counted by EXPLAIN.
CREATE OR REPLACE FUNCTION ledger.projects_seen(VARIADIC p_rights text[]) RETURNS text[]
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  allowed CONSTANT text[] := ledger.projects_with(VARIADIC p_rights);
BEGIN
  RETURN coalesce(allowed,
    ARRAY(SELECT p.project_id::text FROM ledger.project AS p) || ARRAY['*']);
END $$;
