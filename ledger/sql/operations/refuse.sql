-- Tells why commands were not kept: returns what their runs look like now, without a row for a run
-- that is not in the project. Records the refusal of each late worker as write.refused: once for a
-- token and an operation, and at most 10 times for a token, 80 times in a run for one credential
-- and 100 times in a run, so that nobody hides another's refusals by presenting their tokens. The
-- last is named 'and more': refusals after it are not recorded. A token that the run never had is
-- refused without a record, because invented ones would fill the list. Locks: run_state rows, in
-- run_id order.
CREATE OR REPLACE FUNCTION ledger.refuse(
  p_project text, p_actor text, p_name text, p_runs uuid[], p_tokens int[],
  p_workers text[] DEFAULT NULL
) RETURNS TABLE (
  run_id uuid, given_token int, refused boolean, state text, version int, token int, worker_id text,
  lease_until timestamptz, available_at timestamptz, attempt_count int, max_attempts int,
  cost_usd numeric, step_count int
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_hashjoin = off
SET enable_mergejoin = off
SET enable_seqscan = off
SET enable_memoize = off
SET enable_sort = off
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
  checked boolean;
  writer CONSTANT text := ledger.credential();
BEGIN
  checked := ledger.check_count(cardinality(p_runs));
  checked := ledger.check_access(p_project, CASE WHEN num_nonnulls(VARIADIC p_tokens) > 0
    THEN '{work}' ELSE '{work,submit,decide}' END::text[], ARRAY[p_actor]);
  checked := ledger.check_given('p_actor', p_actor IS NOT NULL
    OR coalesce(num_nonnulls(VARIADIC p_tokens), 0) = 0); -- then nothing is refused
  checked := ledger.check_texts(ARRAY[p_actor, p_name]);
  PERFORM ledger.lock_runs(p_project, p_runs);
  RETURN QUERY
  WITH asked AS MATERIALIZED ( -- each run once, in the order of the locks
    SELECT DISTINCT ON (given.run_id) given.* FROM unnest(p_runs, p_tokens, p_workers)
      AS given (run_id, token, worker) ORDER BY given.run_id
  ), seen AS MATERIALIZED ( -- each run as it is now, and whether the token given is not its own
    SELECT asked.token AS given_token, asked.token IS NOT NULL
      AND (asked.token IS DISTINCT FROM run.token OR asked.worker <> run.worker_id
        OR run.lease_credential <> writer) AS refused,
      run.*
    FROM asked
    CROSS JOIN LATERAL (
      SELECT run.* FROM ledger.run_state AS run WHERE run.project_id = p_project
        AND run.run_id = asked.run_id FOR UPDATE
    ) AS run
  ), next AS MATERIALIZED ( -- the refusals that were not recorded before
    SELECT seen.*, seen.version + 1 AS new_version,
      greatest(ledger.now(), seen.updated_at) AS recorded_at
    FROM seen
    WHERE seen.refused
      -- A run whose month is archived has a finished history: there is no table left to add to.
      AND NOT EXISTS (SELECT FROM ledger.archive AS archive
        WHERE archive.detached AND seen.run_id >= archive.first AND seen.run_id < archive.beyond
        OFFSET 0)
      AND EXISTS (
        SELECT FROM (
          SELECT lease.type FROM ledger.event AS lease
          WHERE lease.project_id = p_project AND lease.run_id = seen.run_id
            AND lease.version = seen.given_token OFFSET 0
        ) AS lease
        WHERE lease.type = 'lease.acquired')
  ), bounded AS MATERIALIZED ( -- those for which there is room; the last says that more may follow
    SELECT next.*, CASE WHEN of_token.count = 9 OR of_run.count = 99 OR of_run.own = 79
      THEN 'and more' ELSE p_name END AS name
    FROM next
    -- In the order of event_refused, and sorting is off: no plan walks the run's history.
    CROSS JOIN LATERAL (
      SELECT count(*), bool_or(recorded.name = p_name) AS has FROM (
        SELECT appended.name FROM ledger.event AS appended
        WHERE appended.project_id = p_project AND appended.run_id = next.run_id
          AND appended.type = 'write.refused' AND appended.token = next.given_token
          AND appended.credential = writer
        ORDER BY appended.name OFFSET 0
      ) AS recorded
    ) AS of_token
    CROSS JOIN LATERAL (
      SELECT count(*), count(*) FILTER (WHERE recorded.credential = writer) AS own FROM (
        SELECT appended.credential FROM ledger.event AS appended
        WHERE appended.project_id = p_project AND appended.run_id = next.run_id
          AND appended.type = 'write.refused'
        ORDER BY appended.token, appended.name LIMIT 100
      ) AS recorded
    ) AS of_run
    WHERE of_token.count < 10 AND of_token.has IS NOT TRUE
      AND of_run.count < 100 AND of_run.own < 80
  ), appended AS (
    INSERT INTO ledger.event (project_id, run_id, version, recorded_at, type, actor, name,
      worker_id, token, credential, hash)
    SELECT p_project, bounded.run_id, bounded.new_version, bounded.recorded_at, 'write.refused',
      p_actor, bounded.name, p_actor, bounded.given_token, writer,
      ledger.event_hash(bounded.hash, p_project, bounded.run_id, bounded.new_version,
        bounded.recorded_at, 'write.refused', p_actor, name => bounded.name,
        worker_id => p_actor, token => bounded.given_token, credential => writer)
    FROM bounded
  )
  SELECT seen.run_id, seen.given_token, seen.refused, seen.state, seen.version, seen.token,
    seen.worker_id, seen.lease_until, seen.available_at, seen.attempt_count, seen.max_attempts,
    seen.cost_usd, seen.step_count
  FROM seen;
END $$;
