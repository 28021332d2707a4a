-- Records that the session's credential reads the content of a run by a route, once a minute. Does
-- nothing for a run that is not in the project. Needs the right read or audit.
CREATE OR REPLACE FUNCTION ledger.note_read(p_project text, p_run uuid, p_route text) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  checked boolean;
BEGIN
  checked := ledger.check_access(p_project, '{read,audit}');
  checked := ledger.check_given('p_route', p_route IS NOT NULL);
  checked := ledger.check_texts(ARRAY[p_route], 200, true);
  INSERT INTO ledger.payload_read (project_id, read_at, run_id, credential, route)
  SELECT p_project, date_trunc('minute', clock_timestamp(), 'UTC'), p_run, ledger.credential(),
    p_route
  WHERE EXISTS (SELECT FROM ledger.run_state AS s
    WHERE s.project_id = p_project AND s.run_id = p_run)
  ON CONFLICT DO NOTHING;
END $$;
