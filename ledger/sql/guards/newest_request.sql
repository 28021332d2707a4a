-- The version of the newest event that asked for an approval in a run; null if none did. Internal
-- to ledger.decide.
CREATE OR REPLACE FUNCTION ledger.newest_request(p_project text, p_run uuid) RETURNS int
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT event.version FROM ledger.event AS event
  WHERE event.project_id = p_project AND event.run_id = p_run AND event.type = 'approval.requested'
  ORDER BY event.version DESC LIMIT 1
$$;
