-- Reads runs of a project by their ids, at most 10,000; what the policies of the tables would show,
-- asked for once and not by each table and each row: nothing without one of the rights read, audit
-- and work, and no content with work alone, or where p_content is false.
CREATE OR REPLACE FUNCTION ledger.read_runs(
  p_project text, p_runs uuid[], p_content boolean DEFAULT NULL
) RETURNS SETOF ledger.run
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_hashjoin = off
SET enable_mergejoin = off
SET enable_seqscan = off
SET enable_bitmapscan = off
SET jit = off
AS $$
DECLARE
  checked CONSTANT boolean := ledger.check_count(cardinality(p_runs));
BEGIN
  IF p_content IS NOT FALSE AND ledger.has_right(p_project, '{read,audit}') THEN
    RETURN QUERY SELECT seen.* FROM unnest(p_runs) AS asked (run_id) CROSS JOIN LATERAL (
      SELECT known.* FROM ledger.run AS known
      WHERE known.project_id = p_project AND known.run_id = asked.run_id
      OFFSET 0) AS seen;
  ELSIF ledger.has_right(p_project, '{read,audit,work}') THEN
    RETURN QUERY SELECT seen.*, NULL::text, NULL::text, NULL::text
    FROM unnest(p_runs) AS asked (run_id) CROSS JOIN LATERAL (
      SELECT known.* FROM ledger.run_state AS known
      WHERE known.project_id = p_project AND known.run_id = asked.run_id
      OFFSET 0) AS seen;
  END IF;
END $$;
