-- Refuses a project that is not given (22023) or does not exist (RF404). ledger.check_access calls
-- it, unless it is about all projects; functions that write of a project call it for `*`, too.
-- Returns true, so that a caller can assign it. Internal to the owner's functions.
CREATE OR REPLACE FUNCTION ledger.check_project(p_project text) RETURNS boolean
LANGUAGE plpgsql STABLE
AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM ledger.project AS project WHERE project.project_id = p_project) THEN
    PERFORM ledger.check_given('p_project', p_project IS NOT NULL);
    RAISE EXCEPTION 'project % does not exist', p_project USING ERRCODE = 'RF404';
  END IF;
  RETURN true;
END $$;
