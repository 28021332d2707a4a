-- Whether nothing was appended under a lease, not even a heartbeat. What others append meanwhile,
-- such as the refusal of an earlier worker, does not count. Volatile, so that it sees what was
-- appended until the run was locked. It is a function, outside of the reaper's statement, because
-- that locks runs: when PostgreSQL 18 locks a row that was changed since the statement began, it
-- evaluates the row again with a copy of the plan whose partition pruning points to freed memory,
-- and the next run whose events that statement reads would crash the server. Internal to
-- ledger.reap. Locks: none.
CREATE OR REPLACE FUNCTION ledger.nothing_begun(p_project text, p_run uuid, p_token int)
RETURNS boolean
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
  PERFORM FROM ledger.event AS done
  WHERE done.project_id = p_project AND done.run_id = p_run AND done.version > p_token
    AND done.token = p_token AND done.type <> 'write.refused'
  ORDER BY done.version LIMIT 1;
  RETURN NOT FOUND;
END $$;
