-- Leases the oldest claimable runs of a project to a worker: lowest priority number first, then
-- submission order.
--
-- How a run is leased: (1) claim_ranges says where to look, in the index of runs that wait since
-- they were submitted and in that of runs that were put off or given back; (2) `locked` locks in
-- each range as many as are wanted of it, skipping rows that another claim has locked, so two
-- workers never get the same run; (3) lease.acquired is appended for each, in the same statement;
-- its version is the fencing token that every later write of the worker must carry; (4) the
-- trigger on `event` folds it into run_state, which takes the run out of its index.
--
-- A second round follows where the first took less than was wanted, for one of two reasons. Other
-- claims took runs that claim_ranges had counted on in several ranges: then claim_rest locks others
-- in their place. Or limited kinds were all there was, and other claims were counting in them: then
-- await_kinds waits for those claims.
--
-- A claim begins to search at low-water marks. There is one for each kind and priority, the place
-- of the first run in the worker's last batch: the run's id, or for a run that came back the time
-- at which it came due (`due_at`). Index entries before a mark are dead, but only vacuum removes
-- them, and while somebody holds an old snapshot they grow in number. The caller drops its marks
-- now and then (ledger/operations/claim.py), because a run whose transaction was open for a while
-- lies before them. Where the caller has no mark, the ledger's own mark is used, which lies further
-- back and leaves nothing out (ledger/sql/marks/move_low_water.sql).
--
-- Among the runs of one priority that came back, those that came due first are taken first; the
-- runs that are taken are in the order above.
--
-- A paused kind is skipped; of a limited kind as many runs are taken as there is room for
-- (ledger/sql/operations/kind_rooms.sql). Locks: run_state rows, SKIP LOCKED, so a claim waits for
-- no run; the first event of each limited kind. If another claim holds that event, the kind is
-- skipped; only a claim that found nothing else waits for it, for a second at most.
--
-- Claims of the same kinds take turns, 32 at a time, by advisory locks of the transaction. In a
-- larger crowd each claim would walk over the runs that all others took after its snapshot, and
-- lock the new version of each, so that it falls back further. A claim without a turn waits for
-- one, a second at most (ledger/sql/operations/await_turn.sql).
CREATE OR REPLACE FUNCTION ledger.claim(
  p_project text, p_worker text, p_kinds text[], p_limit int, p_ttl interval,
  p_mark_kinds text[] DEFAULT '{}', p_mark_priorities int[] DEFAULT '{}',
  p_mark_runs uuid[] DEFAULT '{}', p_mark_dues timestamptz[] DEFAULT '{}'
) RETURNS TABLE (
  run_id uuid, token int, attempt int, kind text, priority int, max_attempts int,
  lease_until timestamptz, cancel_requested boolean, input text, due_at timestamptz
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
  writer CONSTANT text := ledger.credential();
  checked boolean; -- never read: an assignment runs a check without a query, PERFORM with one
  of_kinds record;
  ranges record;
  moment timestamptz; -- a variable, because an index is not searched for a volatile function
  knows_returning boolean := coalesce(num_nonnulls(VARIADIC p_mark_dues) > 0, false);
  wanted int := p_limit;
  taken int;
  turn CONSTANT bigint := hashtextextended(concat_ws(' ', 'ledger.claim', p_project, p_kinds), 0)
    # (pg_backend_pid() % 32);
BEGIN
  checked := ledger.check_access(p_project, '{work}', ARRAY[p_worker]);
  checked := ledger.check_given('p_worker', p_worker IS NOT NULL);
  checked := ledger.check_texts(ARRAY[p_worker] || p_kinds, 200, true);
  IF p_limit IS NULL OR p_limit NOT BETWEEN 1 AND 10000
    OR p_ttl IS NULL OR p_ttl <= '0' OR p_ttl > '1 day' THEN
    RAISE EXCEPTION 'a claim takes 1 to 10000 runs, for a time that is positive, at most a day'
      USING ERRCODE = '22023';
  END IF;
  IF NOT pg_try_advisory_xact_lock(turn) THEN
    PERFORM ledger.await_turn(turn);
  END IF;
  moment := ledger.now(); -- after the wait, so that what came due meanwhile is taken
  IF cardinality(p_mark_kinds) = 0 THEN
    PERFORM ledger.move_low_water(p_project, coalesce(p_kinds, ARRAY(
      SELECT DISTINCT known.kind FROM ledger.kind AS known WHERE known.project_id = p_project)),
      '1 second');
  END IF;
  of_kinds := ledger.kind_rooms(p_project, p_kinds, knows_returning, moment);
  IF of_kinds.places > 0 AND (of_kinds.places > 1 OR cardinality(p_mark_kinds) = 0) THEN
    SELECT low.* INTO p_mark_kinds, p_mark_priorities, p_mark_runs, p_mark_dues
    FROM ledger.add_low_marks(p_project, of_kinds.kinds, of_kinds.has_returning, p_mark_kinds,
      p_mark_priorities, p_mark_runs, p_mark_dues) AS low;
  END IF;
  ranges := ledger.claim_ranges(p_project, of_kinds.kinds, of_kinds.has_returning, p_limit, moment,
    of_kinds.limited, of_kinds.rooms, p_mark_kinds, p_mark_priorities, p_mark_runs, p_mark_dues);
  FOR round IN 1..2 LOOP -- the second only where other claims were in the way
    taken := 0;
    IF ranges.counted > 0 THEN
      RETURN QUERY
      WITH leases AS MATERIALIZED ( -- each lease; its token is the version of the event
        SELECT timed.*, timed.version + 1 AS token,
          timed.attempt_count + (timed.state = 'pending')::int AS attempt,
          timed.recorded_at + p_ttl AS lease_until
        FROM ( -- time never goes back within a run
          SELECT locked.*, greatest(ledger.now(), locked.updated_at) AS recorded_at
          FROM ( -- the oldest that no other claim holds
            SELECT run.*
            FROM unnest(ranges.kinds, ranges.priorities, ranges.belows, ranges.runs, ranges.dues,
              ranges.quotas) AS range (kind, priority, below, run, due, quota)
            CROSS JOIN LATERAL (
              SELECT waiting.* FROM (
                SELECT run.run_id, run.version, run.hash, run.kind, run.priority, run.state,
                  run.attempt_count, run.max_attempts, run.updated_at, run.cancel_requested_at,
                  NULL::timestamptz AS due_at
                FROM ledger.run_state AS run
                WHERE range.due IS NULL AND run.project_id = p_project AND run.kind = range.kind
                  AND run.available_at <= run.created_at
                  AND (run.priority, run.run_id) >= (range.priority, range.run)
                  AND run.priority < range.below
                ORDER BY run.priority, run.run_id
                LIMIT range.quota
                FOR UPDATE SKIP LOCKED
              ) AS waiting
              UNION ALL
              SELECT back.* FROM (
                SELECT run.run_id, run.version, run.hash, run.kind, run.priority, run.state,
                  run.attempt_count, run.max_attempts, run.updated_at, run.cancel_requested_at,
                  run.available_at AS due_at
                FROM ledger.run_state AS run
                WHERE range.due IS NOT NULL AND run.project_id = p_project AND run.kind = range.kind
                  AND run.available_at > run.created_at AND run.priority = range.priority
                  AND (run.available_at, run.run_id) >= (range.due, range.run)
                  AND run.available_at <= moment
                ORDER BY run.available_at, run.run_id
                LIMIT range.quota
                FOR UPDATE SKIP LOCKED
              ) AS back
            ) AS run
            WHERE range.quota > 0
            ORDER BY run.priority, run.run_id
            LIMIT wanted
          ) AS locked
        ) AS timed
      ), appended AS (
        INSERT INTO ledger.event (project_id, run_id, version, recorded_at, type, actor, state,
          attempt, worker_id, token, lease_until, credential, hash)
        SELECT p_project, leases.run_id, leases.token, leases.recorded_at, 'lease.acquired',
          p_worker, 'running', leases.attempt, p_worker, leases.token, leases.lease_until, writer,
          ledger.event_hash(leases.hash, p_project, leases.run_id, leases.token, leases.recorded_at,
            'lease.acquired', p_worker, state => 'running', attempt => leases.attempt,
            worker_id => p_worker, token => leases.token, lease_until => leases.lease_until,
            credential => writer)
        FROM leases
      )
      SELECT leases.run_id, leases.token, leases.attempt, leases.kind, leases.priority,
        leases.max_attempts, leases.lease_until, leases.cancel_requested_at IS NOT NULL,
        input.body::text, leases.due_at
      FROM leases
      LEFT JOIN LATERAL (
        SELECT input.body FROM ledger.payload AS input
          WHERE input.project_id = p_project AND input.run_id = leases.run_id AND input.version = 1
          OFFSET 0
      ) AS input ON true;
      GET DIAGNOSTICS taken = ROW_COUNT;
    END IF;
    wanted := wanted - taken;
    EXIT WHEN wanted = 0 OR round = 2;
    IF taken = 0 AND cardinality(of_kinds.busy) > 0 AND cardinality(of_kinds.limited) = 0 THEN
      PERFORM ledger.await_kinds(p_project, of_kinds.busy);
      of_kinds := ledger.kind_rooms(p_project, p_kinds, knows_returning, moment);
      ranges := ledger.claim_ranges(p_project, of_kinds.kinds, of_kinds.has_returning, p_limit,
        moment, of_kinds.limited, of_kinds.rooms, p_mark_kinds, p_mark_priorities, p_mark_runs,
        p_mark_dues);
    ELSIF cardinality(ranges.kinds) > 1 AND ranges.counted = p_limit THEN
      ranges := ledger.claim_rest(p_project, wanted, moment, of_kinds.limited, ranges.kinds,
        ranges.priorities, ranges.belows, ranges.runs, ranges.dues);
    ELSE
      EXIT;
    END IF;
  END LOOP;
END $$;
