-- Records that the session's credential reads the content of runs by a route, each once a minute.
-- Does nothing for a run that is not in the project. Needs the right read or audit. Waits two
-- seconds for the same record of another transaction of the credential, and then raises 55P03.
CREATE OR REPLACE FUNCTION ledger.note_reads(p_project text, p_runs uuid[], p_route text)
  RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '2s'
AS $$
DECLARE
  checked boolean;
BEGIN
  checked := ledger.check_access(p_project, '{read,audit}');
  checked := ledger.check_given('p_runs', p_runs IS NOT NULL);
  checked := ledger.check_count(cardinality(p_runs));
  checked := ledger.check_given('p_route', p_route IS NOT NULL);
  checked := ledger.check_texts(ARRAY[p_route], 200, true);
  INSERT INTO ledger.payload_read (project_id, read_at, run_id, credential, route)
  SELECT p_project, date_trunc('minute', clock_timestamp(), 'UTC'), asked.run, ledger.credential(),
    p_route
  FROM (SELECT DISTINCT named.run FROM unnest(p_runs) AS named (run) ORDER BY named.run) AS asked
  WHERE EXISTS (SELECT FROM ledger.run_state AS known
    WHERE known.project_id = p_project AND known.run_id = asked.run)
  ON CONFLICT DO NOTHING;
END $$;
