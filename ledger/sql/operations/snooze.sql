-- Keeps a request for an approval out of a person's inbox until a moment, or until the request
-- changes; without a moment it is back at once. It is a setting of the person, not an event of the
-- run. Returns whether the run waits for that request or, without a moment, whether the request was
-- put off. A person has at most 500. Needs the right decide. Locks: the person's setting; waits two
-- seconds for another call that changes it.
CREATE OR REPLACE FUNCTION ledger.snooze(
  p_project text, p_actor text, p_run uuid, p_version int, p_until timestamptz
) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '2s'
AS $$
DECLARE
  present CONSTANT timestamptz := ledger.now();
  most CONSTANT int := 500;
  checked boolean;
  lapses timestamptz;
BEGIN
  checked := ledger.check_access(p_project, '{decide}', ARRAY[p_actor]);
  checked := ledger.check_given('p_actor', p_actor IS NOT NULL);
  checked := ledger.check_texts(ARRAY[p_actor], 200, true);
  checked := ledger.check_times(ARRAY[p_until]);
  IF p_until IS NULL THEN
    DELETE FROM ledger.snooze AS known WHERE known.project_id = p_project
      AND known.actor = p_actor AND known.run_id = p_run AND known.version = p_version;
    RETURN FOUND;
  END IF;
  IF p_until <= present OR p_until > present + interval '90 days' THEN
    RAISE EXCEPTION 'a request is put off to a time from now on, at most 90 days away, not to %',
      p_until USING ERRCODE = '22023';
  END IF;
  -- Settings that have ended do not count against the limit.
  DELETE FROM ledger.snooze AS known WHERE known.project_id = p_project
    AND known.actor = p_actor AND known.until <= present;
  IF (SELECT count(*) FROM ledger.snooze AS known WHERE known.project_id = p_project
      AND known.actor = p_actor AND known.run_id <> p_run) >= most THEN
    RAISE EXCEPTION '% has put off % requests: take one back', p_actor, most
      USING ERRCODE = '22023';
  END IF;
  SELECT request.wait_until INTO lapses FROM ledger.event AS request
  WHERE request.project_id = p_project AND request.run_id = p_run AND request.version = p_version
    AND request.version = ledger.newest_request(p_project, p_run);
  IF lapses <= p_until THEN
    RAISE EXCEPTION 'nobody can decide the request after %: put it off to an earlier time', lapses
      USING ERRCODE = '22023';
  END IF;
  INSERT INTO ledger.snooze AS known (project_id, actor, run_id, version, seen, until)
  SELECT p_project, p_actor, p_run, p_version, run.version, p_until
  FROM ledger.run_state AS run
  WHERE run.project_id = p_project AND run.run_id = p_run AND run.state = 'waiting_approval'
    AND run.available_at IS NULL -- not decided yet
    AND p_version = ledger.newest_request(p_project, p_run)
  ON CONFLICT (project_id, actor, run_id) DO UPDATE
    SET version = excluded.version, seen = excluded.seen, until = excluded.until;
  RETURN FOUND;
END $$;
