-- Takes deliveries of a webhook that are due, for p_lease: one without a record by then is due
-- again. One delivery of a run at a time, in the order of versions: the next is due once the one
-- before it is delivered or given up. Needs the right read; see ledger.webhook_duties.
CREATE OR REPLACE FUNCTION ledger.due_deliveries(
  p_project text, p_webhook text, p_limit int, p_lease interval
) RETURNS TABLE (run_id uuid, version int, type text, body text, attempts int)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_hashjoin = off
SET enable_mergejoin = off
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_sort = off
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
  -- a variable, because an index is not searched for a volatile function
  moment CONSTANT timestamptz := ledger.now();
BEGIN
  PERFORM ledger.check_access(p_project, '{read}');
  IF (p_lease BETWEEN '0' AND '1 day' AND p_limit BETWEEN 1 AND 10000) IS NOT TRUE THEN
    RAISE EXCEPTION 'at most 10,000 deliveries are taken, for a day at most'
      USING ERRCODE = '22023';
  END IF;
  IF NOT EXISTS (SELECT FROM ledger.webhook WHERE webhook.project_id = p_project
    AND webhook.webhook_id = p_webhook AND NOT webhook.is_paused) THEN
    RETURN;
  END IF;
  RETURN QUERY UPDATE ledger.delivery SET next_at = moment + p_lease
  FROM (
    SELECT waiting.run_id, waiting.version FROM ledger.delivery AS waiting
    WHERE waiting.webhook_id = p_webhook AND NOT waiting.follows AND waiting.next_at <= moment
    ORDER BY waiting.next_at LIMIT p_limit FOR UPDATE SKIP LOCKED
  ) AS due
  WHERE delivery.webhook_id = p_webhook AND delivery.run_id = due.run_id
    AND delivery.version = due.version
  RETURNING delivery.run_id, delivery.version, delivery.type::text, delivery.body,
    delivery.attempts;
END $$;
