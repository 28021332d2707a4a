-- Records the idempotency key of each command that has just been kept: its run's newest event bears
-- the key. The command's content is kept as a hash under a salt. The event's own hash is kept with
-- the key, which outlives the month of its run. Internal to operations that hold the locks of the
-- runs.
CREATE OR REPLACE FUNCTION ledger.record_keys(
  p_project text, p_runs uuid[], p_keys text[], p_contents text[], p_seed bytea
) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_hashjoin = off
SET enable_mergejoin = off
SET enable_seqscan = off
SET enable_memoize = off
SET jit = off
AS $$
DECLARE
  checked boolean;
BEGIN
  checked := ledger.check_due_keys(p_project, p_keys);
  INSERT INTO ledger.command (project_id, key, salt, content_hash, run_id, version, hash)
  SELECT p_project, given.key, given.salt, ledger.payload_hash(given.salt, given.content),
    given.run_id, run.version, run.hash
  FROM (
    SELECT asked.*, sha256(p_seed || convert_to(asked.key, 'UTF8')) AS salt
    FROM unnest(p_runs, p_keys, p_contents) AS asked (run_id, key, content) OFFSET 0
  ) AS given
  CROSS JOIN LATERAL (
    SELECT run.version, run.hash FROM ledger.run_state AS run
    WHERE run.project_id = p_project AND run.run_id = given.run_id OFFSET 0
  ) AS run
  CROSS JOIN LATERAL (
    SELECT FROM ledger.event AS event
    WHERE event.project_id = p_project AND event.run_id = given.run_id
      AND event.version = run.version AND event.key = given.key OFFSET 0
  ) AS kept
  WHERE NOT EXISTS (
    SELECT FROM ledger.command AS used
    WHERE used.project_id = p_project AND used.key = given.key AND used.run_id = given.run_id
    OFFSET 0)
  ORDER BY given.key;
END $$;
