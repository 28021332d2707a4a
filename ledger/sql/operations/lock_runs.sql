-- Locks runs, in the order of their ids. It is a statement of its own, before one that reads keys
-- or refusals, so that the snapshot of that next statement shows what the last holder of the lock
-- wrote.
CREATE OR REPLACE FUNCTION ledger.lock_runs(p_project text, p_runs uuid[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_hashjoin = off
SET enable_mergejoin = off
SET enable_seqscan = off
SET jit = off
AS $$
BEGIN
  PERFORM FROM (
    SELECT DISTINCT asked.run_id FROM unnest(p_runs) AS asked (run_id) ORDER BY asked.run_id
      OFFSET 0
  ) AS asked
  CROSS JOIN LATERAL (
    SELECT FROM ledger.run_state AS run
    WHERE run.project_id = p_project AND run.run_id = asked.run_id FOR UPDATE
  ) AS locked;
END $$;
