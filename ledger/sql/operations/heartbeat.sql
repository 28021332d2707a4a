-- Appends lease.heartbeat for every lease that is still current and moves its end; one statement
-- for all runs of a worker. A beat after the lease's end is accepted while nobody else took the
-- run, and says by how many milliseconds it was late. A lease that is not returned is lost.
-- Locks: run_state rows, in run_id order.
CREATE OR REPLACE FUNCTION ledger.heartbeat(
  p_project text, p_runs uuid[], p_tokens int[], p_ttls interval[], p_workers text[] DEFAULT NULL
) RETURNS TABLE (run_id uuid, lease_until timestamptz, late_ms int, cancel_requested boolean)
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
  checked boolean;
  writer CONSTANT text := ledger.credential();
BEGIN
  checked := ledger.check_count(cardinality(p_runs));
  checked := ledger.check_workers(p_tokens, p_workers);
  checked := ledger.check_access(p_project, '{work}');
  IF EXISTS (SELECT FROM unnest(p_ttls) AS given (ttl)
    WHERE given.ttl <= '0' OR given.ttl > '1 day') THEN
    RAISE EXCEPTION 'a lease must end within a day, and not at once' USING ERRCODE = '22023';
  END IF;
  RETURN QUERY
  WITH asked AS MATERIALIZED ( -- each lease once, in the order of the locks
    SELECT DISTINCT ON (given.run_id) given.* FROM unnest(p_runs, p_tokens, p_ttls, p_workers)
      AS given (run_id, token, ttl, worker) ORDER BY given.run_id
  ), locked AS MATERIALIZED ( -- those that are current
    SELECT asked.run_id, asked.token, asked.ttl, run.* FROM asked
    CROSS JOIN LATERAL (
      SELECT run.version, run.hash, run.updated_at, run.worker_id, run.lease_until AS was_until,
        run.cancel_requested_at
      FROM ledger.run_state AS run
      WHERE run.project_id = p_project AND run.run_id = asked.run_id
        -- No equality: the planner would search the index of leased runs for it, and many runs
        -- have the same token.
        AND asked.token IS NOT NULL AND run.token IS NOT DISTINCT FROM asked.token
        AND run.lease_credential = writer
        AND run.worker_id IS NOT DISTINCT FROM asked.worker
      FOR UPDATE
    ) AS run
  ), next AS MATERIALIZED ( -- the beat of each; a lease is never shortened
    SELECT timed.*, greatest(timed.was_until, timed.recorded_at + timed.ttl) AS lease_until,
      CASE WHEN timed.recorded_at > timed.was_until
        THEN least(floor(extract(epoch FROM timed.recorded_at - timed.was_until) * 1000),
          2147483647)::int END AS late_ms
    FROM (SELECT locked.*, greatest(ledger.now(), locked.updated_at) AS recorded_at
      FROM locked) AS timed
  ), appended AS (
    INSERT INTO ledger.event (project_id, run_id, version, recorded_at, type, actor, token,
      lease_until, late_ms, credential, hash)
    SELECT p_project, next.run_id, next.version + 1, next.recorded_at, 'lease.heartbeat',
      next.worker_id, next.token, next.lease_until, next.late_ms, writer,
      ledger.event_hash(next.hash, p_project, next.run_id, next.version + 1, next.recorded_at,
        'lease.heartbeat', next.worker_id, token => next.token, lease_until => next.lease_until,
        late_ms => next.late_ms, credential => writer)
    FROM next
  )
  SELECT next.run_id, next.lease_until, next.late_ms, next.cancel_requested_at IS NOT NULL
    FROM next;
END $$;
