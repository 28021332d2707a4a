-- Removes a schedule; returns whether there was one. Needs the right schedule.
CREATE OR REPLACE FUNCTION ledger.drop_schedule(p_project text, p_actor text, p_name text)
  RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  checked boolean;
BEGIN
  checked := ledger.check_access(p_project, '{schedule}', ARRAY[p_actor]);
  checked := ledger.check_given('p_actor', p_actor IS NOT NULL);
  checked := ledger.check_given('p_name', p_name IS NOT NULL);
  checked := ledger.check_texts(ARRAY[p_actor, p_name], 200, true);
  PERFORM ledger.lock_row('ledger.schedule', 'name', p_project, p_name);
  -- The row that is removed names who removes it: the control history takes it from there.
  UPDATE ledger.schedule AS known SET actor = p_actor, reason = NULL
  WHERE known.project_id = p_project AND known.name = p_name AND known.actor <> p_actor;
  DELETE FROM ledger.schedule AS known WHERE known.project_id = p_project AND known.name = p_name;
  RETURN FOUND;
END $$;
