-- The version of the newest event that asked for an approval in a run; null if none did. Internal
-- to ledger.decide. A run is named by a range, as it is wherever the newest event of a type is
-- looked for: then every plan reads the partitions in the order of their bounds, and the run
-- backwards up to that event. With an equality a plan may read and sort the whole run.
CREATE OR REPLACE FUNCTION ledger.newest_request(p_project text, p_run uuid) RETURNS int
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_bitmapscan = off
AS $$
  SELECT event.version FROM ledger.event AS event
  WHERE event.project_id = p_project AND event.run_id >= p_run AND event.run_id <= p_run
    AND event.type = 'approval.requested'
  ORDER BY event.run_id DESC, event.version DESC LIMIT 1
$$;
