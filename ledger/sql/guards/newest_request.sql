-- The version of the newest event that asked for an approval in a run; null if none did. Internal
-- to ledger.decide.
CREATE OR REPLACE FUNCTION ledger.newest_request(p_project text, p_run uuid) RETURNS int
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT e.version FROM ledger.event AS e
  WHERE e.project_id = p_project AND e.run_id = p_run AND e.type = 'approval.requested'
  ORDER BY e.version DESC LIMIT 1
$$;
