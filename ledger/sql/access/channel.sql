-- The channel of a project's wake-ups, for those who have any right in it.
CREATE OR REPLACE FUNCTION ledger.channel(p_project text) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  allowed CONSTANT text[] := ledger.projects_with();
BEGIN
  RETURN (SELECT project.channel FROM ledger.project
    WHERE project.project_id = p_project AND (allowed IS NULL OR p_project = ANY (allowed)));
END $$;
