-- Refuses a project that is not given (22023) or does not exist (RF404): for the owner's login,
-- check_access looks at neither. Returns true, so that a caller can assign it. Internal to
-- functions that take orders.
CREATE OR REPLACE FUNCTION ledger.check_project(p_project text) RETURNS boolean
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM ledger.check_given('p_project', p_project IS NOT NULL);
  IF NOT EXISTS (SELECT FROM ledger.project AS project WHERE project.project_id = p_project) THEN
    RAISE EXCEPTION 'project % does not exist', p_project USING ERRCODE = 'RF404';
  END IF;
  RETURN true;
END $$;
