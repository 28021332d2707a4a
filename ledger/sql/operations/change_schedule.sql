-- Pauses or resumes a schedule, or notes that somebody has it run now; all of it with a reason, in
-- the control history. A paused one is not due; resumed it is due at p_next_at, and what it missed
-- is not made up for. Returns whether there is such a schedule. Needs the right schedule.
CREATE OR REPLACE FUNCTION ledger.change_schedule(
  p_project text, p_actor text, p_name text, p_change text, p_next_at timestamptz, p_reason text
) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  checked boolean;
  known ledger.schedule;
BEGIN
  checked := ledger.check_access(p_project, '{schedule}', ARRAY[p_actor]);
  checked := ledger.check_given('p_actor', p_actor IS NOT NULL);
  checked := ledger.check_given('p_name', p_name IS NOT NULL);
  checked := ledger.check_given('p_reason', btrim(p_reason) <> '');
  checked := ledger.check_texts(ARRAY[p_actor, p_name], 200, true);
  checked := ledger.check_texts(ARRAY[p_reason], 2000);
  checked := ledger.check_times(ARRAY[p_next_at]);
  IF (p_change IN ('pause', 'resume', 'run')) IS NOT TRUE
    OR (p_next_at IS NOT NULL) <> (p_change = 'resume') THEN
    RAISE EXCEPTION 'a schedule is paused, run, or resumed from a time' USING ERRCODE = '22023';
  END IF;
  PERFORM ledger.lock_row('ledger.schedule', 'name', p_project, p_name);
  SELECT schedule.* INTO known FROM ledger.schedule
  WHERE schedule.project_id = p_project AND schedule.name = p_name;
  IF NOT FOUND THEN
    RETURN false;
  ELSIF p_change = 'run' THEN
    PERFORM ledger.append_control(p_project, 'schedule.run',
      ledger.control_subject('schedule', 'project_id name', to_jsonb(known)),
      (to_jsonb(known) - '{next_at,last_due,updated_at}'::text[])::text, p_actor, p_reason);
  ELSIF known.paused <> (p_change = 'pause') THEN
    UPDATE ledger.schedule SET paused = p_change = 'pause', actor = p_actor,
      reason = p_reason, next_at = coalesce(p_next_at, schedule.next_at)
    WHERE schedule.project_id = p_project AND schedule.name = p_name;
  END IF;
  RETURN true;
END $$;
