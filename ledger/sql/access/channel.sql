-- Returns the channel on which a project's wake-ups are sent. Needs any right in the project.
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
