-- Makes a schedule or changes the one of this name. With p_release, the time of the code that
-- declares it, a schedule stays as it is if a newer release or a later change by hand has set it,
-- or if it is of another kind. Declared again unchanged it keeps its next due time, so a missed one
-- is still made up for. A kind that is new needs p_ahead. Needs the right schedule.
CREATE OR REPLACE FUNCTION ledger.put_schedule(
  p_project text, p_actor text, p_name text, p_kind text, p_input text, p_cron text,
  p_timezone text, p_next_at timestamptz, p_release timestamptz DEFAULT NULL,
  p_ahead boolean DEFAULT false
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  checked boolean;
BEGIN
  checked := ledger.check_access(p_project, '{schedule}', ARRAY[p_actor]);
  checked := ledger.check_project(p_project);
  checked := ledger.check_given('p_actor', p_actor IS NOT NULL);
  checked := ledger.check_given('p_name', p_name IS NOT NULL);
  checked := ledger.check_given('p_kind', p_kind IS NOT NULL);
  checked := ledger.check_given('p_cron', p_cron IS NOT NULL);
  checked := ledger.check_given('p_timezone', p_timezone IS NOT NULL);
  checked := ledger.check_given('p_next_at', p_next_at IS NOT NULL);
  checked := ledger.check_texts(ARRAY[p_actor, p_name, p_kind, p_cron, p_timezone], 200, true);
  checked := ledger.check_content(ARRAY[p_input]);
  checked := ledger.check_times(ARRAY[p_next_at, p_release]);
  -- A kind that a handler declares is not misspelled.
  checked := ledger.check_kind(p_project, p_kind, p_ahead OR p_release IS NOT NULL);
  PERFORM ledger.lock_row('ledger.schedule', 'name', p_project, p_name);
  IF NOT EXISTS (SELECT FROM ledger.schedule
    WHERE schedule.project_id = p_project AND schedule.name = p_name) THEN
    PERFORM ledger.lock_control(p_project); -- against another call that makes it
  END IF;
  INSERT INTO ledger.schedule AS known
    (project_id, name, kind, input, cron, timezone, next_at, actor, release)
  -- A change by hand counts as of its moment.
  VALUES (p_project, p_name, p_kind, p_input, p_cron, p_timezone, p_next_at, p_actor,
    least(p_release, CASE WHEN p_release IS NOT NULL THEN clock_timestamp() END))
  ON CONFLICT (project_id, name) DO UPDATE SET
    kind = excluded.kind, input = excluded.input, cron = excluded.cron,
    timezone = excluded.timezone, actor = excluded.actor, release = excluded.release,
    reason = NULL, -- the reason of an earlier change
    updated_at = clock_timestamp(),
    next_at = CASE WHEN (known.cron, known.timezone) = (excluded.cron, excluded.timezone)
      THEN known.next_at ELSE excluded.next_at END
  WHERE p_release IS NULL OR (known.kind = excluded.kind
    AND coalesce(known.release, known.updated_at) <= excluded.release);
END $$;
