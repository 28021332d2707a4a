-- Leases the oldest claimable runs of a project to a worker: lowest priority number first, then submission order.
--
-- How a run is leased: (1) `range` says where to look in the index run_claimable, per kind; (2) `s` locks up to p_limit
-- rows in each, skipping rows that another claim has locked, so two workers never get the same run; (3) lease.acquired is
-- appended for each, in the same statement; its version is the fencing token that every later write of the worker must carry;
-- (4) the trigger on `event` folds it into run_state, which takes the run out of the index.
--
-- A claim starts at a low-water mark: the first run of the worker's last batch. Entries before it are dead until vacuum, and
-- under a held snapshot there are ever more of them to walk. The caller drops the mark now and then (ledger/operations/claim.py),
-- because delayed and requeued runs are older than it. Runs of a lower priority number than the mark's are always looked at.
--
-- A paused kind is passed over; of a limited kind as many are taken as there is room for, from the start of its one range
-- (ledger/sql/kind_rooms.sql). Locks: run_state rows, SKIP LOCKED, so it waits for nobody; but claims of the same limited kind
-- wait for each other.
CREATE OR REPLACE FUNCTION ledger.claim(
  p_project text, p_worker text, p_kinds text[], p_limit int, p_ttl interval,
  p_mark_kinds text[] DEFAULT '{}', p_mark_priorities int[] DEFAULT '{}', p_mark_runs uuid[] DEFAULT '{}'
) RETURNS TABLE (
  run_id uuid, token int, attempt int, kind text, priority int, max_attempts int, lease_until timestamptz, cancel_requested boolean,
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
  IF p_limit IS NULL OR p_limit NOT BETWEEN 1 AND 10000 OR p_ttl IS NULL OR p_ttl NOT BETWEEN '0' AND '3650 days' OR p_ttl = '0' THEN
    RAISE EXCEPTION 'a claim takes 1 to 10000 runs, for a time that is positive and ends' USING ERRCODE = '22023';
  END IF;
  RETURN QUERY
  WITH n AS MATERIALIZED (
    SELECT k.*, k.version + 1 AS token, k.attempt_count + (k.state = 'pending')::int AS attempt, k.recorded_at + p_ttl AS lease_until
    FROM (
      SELECT s.*, greatest(ledger.now(), s.updated_at) AS recorded_at
      FROM (
        SELECT s.* FROM (
          SELECT k.kind, r.from_priority, r.from_run, r.below_priority, least(p_limit, of_kinds.rooms[k.place]) AS most
          FROM (
            SELECT a.kind, array_position(of_kinds.limited, a.kind) AS place
            FROM (
              SELECT u.kind FROM unnest(p_kinds) AS u (kind)
              UNION ALL
              SELECT DISTINCT d.kind FROM ledger.kind AS d WHERE p_kinds IS NULL AND d.project_id = p_project
            ) AS a
            WHERE a.kind <> ALL (of_kinds.barred)
          ) AS k
          LEFT JOIN LATERAL (
            SELECT m.priority, m.run_id FROM unnest(p_mark_kinds, p_mark_priorities, p_mark_runs) AS m (kind, priority, run_id)
            WHERE m.kind = k.kind AND k.place IS NULL
          ) AS m ON true
          CROSS JOIN LATERAL (VALUES
            (0, '00000000-0000-0000-0000-000000000000'::uuid, coalesce(m.priority, 0)),
            (coalesce(m.priority, 0), coalesce(m.run_id, '00000000-0000-0000-0000-000000000000'), 2147483647)
          ) AS r (from_priority, from_run, below_priority)
          WHERE r.from_priority < r.below_priority
          OFFSET 0
        ) AS range
        CROSS JOIN LATERAL (
          SELECT s.run_id, s.version, s.hash, s.kind, s.priority, s.state, s.attempt_count, s.max_attempts, s.updated_at,
            s.cancel_requested_at
          FROM ledger.run_state AS s
          WHERE s.project_id = p_project AND s.kind = range.kind AND s.available_at IS NOT NULL
            AND (s.priority, s.run_id) >= (range.from_priority, range.from_run) AND s.priority < range.below_priority
            AND s.available_at <= ledger.now()
          ORDER BY s.priority, s.run_id
          LIMIT range.most
          FOR UPDATE SKIP LOCKED
        ) AS s
        ORDER BY s.priority, s.run_id
        LIMIT p_limit
      ) AS s
      OFFSET 0
    ) AS k
  ), e AS (
    INSERT INTO ledger.event (project_id, run_id, version, recorded_at, type, actor, state, attempt, worker_id, token,
      lease_until, hash)
    SELECT p_project, n.run_id, n.token, n.recorded_at, 'lease.acquired', p_worker, 'running', n.attempt, p_worker, n.token,
      n.lease_until,
      ledger.event_hash(n.hash, p_project, n.run_id, n.token, n.recorded_at, 'lease.acquired', p_worker, state => 'running',
        attempt => n.attempt, worker_id => p_worker, token => n.token, lease_until => n.lease_until)
    FROM n
  )
  SELECT n.run_id, n.token, n.attempt, n.kind, n.priority, n.max_attempts, n.lease_until, n.cancel_requested_at IS NOT NULL,
    p.body::text
  FROM n
  LEFT JOIN LATERAL (
    SELECT p.body FROM ledger.payload AS p WHERE p.project_id = p_project AND p.run_id = n.run_id AND p.version = 1 OFFSET 0
  ) AS p ON true;
END $$;
