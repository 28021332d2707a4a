-- Leases the oldest claimable runs of a project to a worker: lowest priority number first, then
-- submission order.
--
-- How a run is leased: (1) `range` says where to look in the index run_claimable, per kind; (2)
-- `s` locks up to p_limit rows in each, skipping rows that another claim has locked, so two
-- workers never get the same run; (3) lease.acquired is appended for each, in the same
-- statement; its version is the fencing token that every later write of the worker must carry;
-- (4) the trigger on `event` folds it into run_state, which takes the run out of the index.
--
-- A claim starts at a low-water mark: the first run of the worker's last batch. Entries before
-- it are dead until vacuum, and under a held snapshot there are ever more of them to walk. The
-- caller drops the mark now and then (ledger/operations/claim.py), because delayed and requeued
-- runs are older than it. Runs of a lower priority number than the mark's are always looked at.
--
-- A paused kind is passed over; of a limited kind as many are taken as there is room for, from
-- the start of its one range (ledger/sql/kind_rooms.sql). Locks: run_state rows, SKIP LOCKED, so
-- it waits for nobody; but claims of the same limited kind wait for each other.
CREATE OR REPLACE FUNCTION ledger.claim(
  p_project text, p_worker text, p_kinds text[], p_limit int, p_ttl interval,
  p_mark_kinds text[] DEFAULT '{}', p_mark_priorities int[] DEFAULT '{}',
    p_mark_runs uuid[] DEFAULT '{}'
) RETURNS TABLE (
  run_id uuid, token int, attempt int, kind text, priority int, max_attempts int,
  lease_until timestamptz, cancel_requested boolean,
  input text
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_hashjoin = off
SET enable_mergejoin = off
SET enable_seqscan = off
SET enable_memoize = off
SET enable_bitmapscan = off
SET enable_sort = off
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
  checked boolean;
  of_kinds record := ledger.kind_rooms(p_project, p_kinds);
BEGIN
  checked := ledger.check_texts(ARRAY[p_worker] || p_kinds);
  IF p_limit IS NULL OR p_limit NOT BETWEEN 1 AND 10000 OR p_ttl IS NULL OR p_ttl NOT BETWEEN '0'
    AND '3650 days' OR p_ttl = '0' THEN
    RAISE EXCEPTION 'a claim takes 1 to 10000 runs, for a time that is positive and ends'
      USING ERRCODE = '22023';
  END IF;
  RETURN QUERY
  WITH kinds AS MATERIALIZED ( -- which kinds, and the place of a limited one in of_kinds.rooms
    SELECT named.kind, array_position(of_kinds.limited, named.kind) AS place
    FROM (
      SELECT asked.kind FROM unnest(p_kinds) AS asked (kind)
      UNION ALL
      SELECT DISTINCT known.kind FROM ledger.kind AS known
      WHERE p_kinds IS NULL AND known.project_id = p_project
    ) AS named
    WHERE named.kind <> ALL (of_kinds.barred)
  ), ranges AS MATERIALIZED (
    -- where to look in the index run_claimable: before the mark's priority, and from the mark on
    SELECT kinds.kind, bounds.from_priority, bounds.from_run, bounds.below_priority,
    least(p_limit, of_kinds.rooms[kinds.place]) AS most
    FROM kinds
    LEFT JOIN LATERAL (
      SELECT given.priority, given.run_id FROM unnest(p_mark_kinds, p_mark_priorities, p_mark_runs)
        AS given (kind, priority, run_id)
      WHERE given.kind = kinds.kind AND kinds.place IS NULL
    ) AS mark ON true
    CROSS JOIN LATERAL (VALUES
      (0, '00000000-0000-0000-0000-000000000000'::uuid, coalesce(mark.priority, 0)),
      (coalesce(mark.priority, 0), coalesce(mark.run_id, '00000000-0000-0000-0000-000000000000'),
        2147483647)
    ) AS bounds (from_priority, from_run, below_priority)
    WHERE bounds.from_priority < bounds.below_priority
  ), locked AS MATERIALIZED ( -- the oldest of them that no other claim holds
    SELECT run.*
    FROM ranges
    CROSS JOIN LATERAL (
      SELECT run.run_id, run.version, run.hash, run.kind, run.priority, run.state,
        run.attempt_count, run.max_attempts, run.updated_at,
        run.cancel_requested_at
      FROM ledger.run_state AS run
      WHERE run.project_id = p_project AND run.kind = ranges.kind AND run.available_at IS NOT NULL
        AND (run.priority, run.run_id) >= (ranges.from_priority, ranges.from_run)
          AND run.priority < ranges.below_priority
        AND run.available_at <= ledger.now()
      ORDER BY run.priority, run.run_id
      LIMIT ranges.most
      FOR UPDATE SKIP LOCKED
    ) AS run
    ORDER BY run.priority, run.run_id
    LIMIT p_limit
  ), timed AS MATERIALIZED ( -- time never goes back within a run
    SELECT locked.*, greatest(ledger.now(), locked.updated_at) AS recorded_at FROM locked
  ), leases AS MATERIALIZED ( -- the token is the version of the event
    SELECT timed.*, timed.version + 1 AS token,
      timed.attempt_count + (timed.state = 'pending')::int AS attempt,
      timed.recorded_at + p_ttl AS lease_until
    FROM timed
  ), appended AS (
    INSERT INTO ledger.event (project_id, run_id, version, recorded_at, type, actor, state, attempt,
      worker_id, token,
      lease_until, hash)
    SELECT p_project, leases.run_id, leases.token, leases.recorded_at, 'lease.acquired', p_worker,
      'running', leases.attempt, p_worker, leases.token,
      leases.lease_until,
      ledger.event_hash(leases.hash, p_project, leases.run_id, leases.token, leases.recorded_at,
        'lease.acquired', p_worker, state => 'running',
        attempt => leases.attempt, worker_id => p_worker, token => leases.token,
          lease_until => leases.lease_until)
    FROM leases
  )
  SELECT leases.run_id, leases.token, leases.attempt, leases.kind, leases.priority,
    leases.max_attempts, leases.lease_until, leases.cancel_requested_at IS NOT NULL,
    input.body::text
  FROM leases
  LEFT JOIN LATERAL (
    SELECT input.body FROM ledger.payload AS input
      WHERE input.project_id = p_project AND input.run_id = leases.run_id AND input.version = 1
      OFFSET 0
  ) AS input ON true;
END $$;
