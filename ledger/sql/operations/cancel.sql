-- Cancels runs: one that nobody holds at once; for a held one it appends cancel.requested, of which
-- the next heartbeat tells the worker. Asking again for a held run appends nothing and returns the
-- run's version. Finished and unknown runs are not returned. Locks: run_state rows, in run_id
-- order.
CREATE OR REPLACE FUNCTION ledger.cancel(
  p_project text, p_actor text, p_runs uuid[], p_body text DEFAULT NULL
) RETURNS TABLE (run_id uuid, version int)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_hashjoin = off
SET enable_mergejoin = off
SET enable_seqscan = off
SET enable_memoize = off
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
  writer CONSTANT text := ledger.credential();
  checked boolean;
  seed bytea := ledger.salt_seed();
BEGIN
  checked := ledger.check_count(cardinality(p_runs));
  checked := ledger.check_access(p_project, '{submit}', ARRAY[p_actor]);
  checked := ledger.check_given('p_actor', p_actor IS NOT NULL);
  checked := ledger.check_texts(ARRAY[p_actor], 200, true);
  checked := ledger.check_content(ARRAY[p_body]);
  RETURN QUERY
  WITH asked AS MATERIALIZED ( -- each run once, in the order of the locks
    SELECT DISTINCT given.run_id FROM unnest(p_runs) AS given (run_id) ORDER BY given.run_id
  ), locked AS MATERIALIZED ( -- those that have not ended
    SELECT asked.run_id, run.*, run.token IS NOT NULL AS held, run.token IS NOT NULL
      AND run.cancel_requested_at IS NOT NULL AS repeated
    FROM asked
    CROSS JOIN LATERAL (
      SELECT run.version, run.hash, run.updated_at, run.token, run.cancel_requested_at
      FROM ledger.run_state AS run
      WHERE run.project_id = p_project AND run.run_id = asked.run_id AND run.completed_at IS NULL
      FOR UPDATE
    ) AS run
  ), next AS MATERIALIZED ( -- the event of each that was not asked before
    SELECT timed.*, timed.version + 1 AS new_version,
      CASE WHEN timed.held THEN 'cancel.requested' ELSE 'run.cancelled' END AS type,
      CASE WHEN NOT timed.held THEN 'cancelled' END AS state,
      ledger.payload_hash(timed.salt, p_body) AS payload_hash
    FROM (
      SELECT locked.*, greatest(ledger.now(), locked.updated_at) AS recorded_at,
        CASE WHEN p_body IS NOT NULL THEN sha256(seed || uuid_send(locked.run_id)) END AS salt
      FROM locked WHERE NOT locked.repeated
    ) AS timed
  ), contents AS (
    INSERT INTO ledger.payload (project_id, run_id, version, salt, body)
    SELECT p_project, next.run_id, next.new_version, next.salt, p_body::json FROM next
      WHERE p_body IS NOT NULL
  ), appended AS (
    INSERT INTO ledger.event AS appended (project_id, run_id, version, recorded_at, type, actor,
      state, payload_hash, credential, hash)
    SELECT p_project, next.run_id, next.new_version, next.recorded_at, next.type, p_actor,
      next.state, next.payload_hash, writer,
      ledger.event_hash(next.hash, p_project, next.run_id, next.new_version, next.recorded_at,
        next.type, p_actor, state => next.state, payload_hash => next.payload_hash,
        credential => writer)
    FROM next
    RETURNING appended.run_id, appended.version
  )
  SELECT appended.run_id, appended.version FROM appended
  UNION ALL
  SELECT locked.run_id, locked.version FROM locked WHERE locked.repeated;
END $$;
