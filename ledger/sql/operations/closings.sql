-- Returns how leases were ended by their own holders: of each lease the first event after
-- lease.acquired that closes it, if the holder wrote that event. So an end that is sent again finds
-- its first outcome (ledger/operations/closing.py). Reads only.
CREATE OR REPLACE FUNCTION ledger.closings(p_project text, p_runs uuid[], p_tokens int[])
RETURNS TABLE (
  run_id uuid, version int, hash bytea, type text, state text, error_code text, cost_usd numeric,
  step_count int, output_sha256 bytea, body text, worker_id text
)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_hashjoin = off
SET enable_mergejoin = off
SET enable_seqscan = off
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
  checked boolean := ledger.check_access(p_project, '{work}');
  writer CONSTANT text := ledger.credential();
BEGIN
  checked := ledger.check_count(cardinality(p_runs));
  RETURN QUERY
  SELECT closing.run_id, closing.version, closing.hash, closing.type::text, closing.state::text,
    closing.error_code::text, closing.cost_usd, closing.step_count, closing.output_sha256,
    content.body::text, acquired.worker_id::text
  FROM unnest(p_runs, p_tokens) AS lease (run_id, token)
  CROSS JOIN LATERAL (
    SELECT event.worker_id FROM ledger.event AS event
    WHERE event.project_id = p_project AND event.run_id = lease.run_id
      AND event.version = lease.token AND event.type = 'lease.acquired'
      AND event.credential = writer OFFSET 0
  ) AS acquired
  CROSS JOIN LATERAL (
    SELECT event.* FROM ledger.event AS event
    WHERE event.project_id = p_project AND event.run_id = lease.run_id
      AND event.version > lease.token
      AND (
        event.type IN (
          'run.completed', 'run.failed', 'run.cancelled', 'run.timed_out', 'run.retried',
          'approval.rejected', 'approval.expired', 'lease.released', 'lease.expired'
        )
        OR (event.type IN ('tool.requested', 'approval.requested') AND event.token IS NULL)
      )
    ORDER BY event.version LIMIT 1
  ) AS closing
  LEFT JOIN LATERAL (
    SELECT payload.body FROM ledger.payload AS payload
    WHERE payload.project_id = p_project AND payload.run_id = closing.run_id
      AND payload.version = closing.version OFFSET 0
  ) AS content ON true
  WHERE closing.actor = acquired.worker_id;
END $$;
