-- The version of the newest event that asked for an approval in a run. Internal to the functions
-- that record a decision.
CREATE OR REPLACE FUNCTION ledger.newest_request(p_project text, p_run uuid) RETURNS int
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT e.version FROM ledger.event AS e
  WHERE e.project_id = p_project AND e.run_id = p_run AND e.type = 'approval.requested'
  ORDER BY e.version DESC LIMIT 1
$$;

-- The digest of what the newest request for an approval showed; null if it named none.
CREATE OR REPLACE FUNCTION ledger.request_shown(p_project text, p_run uuid) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT e.shown_sha256 FROM ledger.event AS e
  WHERE e.project_id = p_project AND e.run_id = p_run
    AND e.version = ledger.newest_request(p_project, p_run)
$$;
