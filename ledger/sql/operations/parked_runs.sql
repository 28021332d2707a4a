-- Returns the ids of all runs that are parked for a tool, in order: a worker's sweep checks whether
-- what they wait for has ended. Reads no index entries before the low-water marks, which
-- ledger.reap moves. Locks: none.
CREATE OR REPLACE FUNCTION ledger.parked_runs(p_project text) RETURNS SETOF uuid
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_hashjoin = off
SET enable_mergejoin = off
SET enable_seqscan = off
SET enable_memoize = off
SET enable_bitmapscan = off
SET jit = off
AS $$
DECLARE
  checked boolean := ledger.check_access(p_project, '{work,read}');
  kind_now text;
  kinds text[] := '{}';
  marked boolean[] := '{}';
BEGIN
  FOR kind_now IN SELECT DISTINCT known.kind FROM ledger.kind AS known
    WHERE known.project_id = p_project
  LOOP
    kinds := kinds || kind_now;
    marked := marked || ledger.marks_hold(p_project, kind_now);
  END LOOP;
  RETURN QUERY SELECT run.run_id FROM unnest(kinds, marked) AS known (kind, marked)
    CROSS JOIN LATERAL ledger.parked(p_project, known.kind, known.marked) AS run
    ORDER BY run.run_id;
END $$;
