-- Takes deliveries of a webhook that are due, for p_lease: one without a record by then is due
-- again. One delivery of a run at a time, in the order of versions: the next is due once the one
-- before it is delivered or given up. Needs the right read; see ledger.webhook_duties.
CREATE OR REPLACE FUNCTION ledger.due_deliveries(
  p_project text, p_webhook text, p_limit int, p_lease interval
) RETURNS TABLE (run_id uuid, version int, type text, body text, attempts int)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
  PERFORM ledger.check_access(p_project, '{read}');
  IF (p_lease BETWEEN '0' AND '1 day' AND p_limit BETWEEN 1 AND 10000) IS NOT TRUE THEN
    RAISE EXCEPTION 'at most 10,000 deliveries are taken, for a day at most'
      USING ERRCODE = '22023';
  END IF;
  RETURN QUERY UPDATE ledger.delivery SET next_at = ledger.now() + p_lease
  FROM (
    SELECT waiting.run_id, waiting.version FROM ledger.delivery AS waiting
    WHERE waiting.project_id = p_project AND waiting.webhook_id = p_webhook
      AND waiting.next_at <= ledger.now()
      AND NOT EXISTS (
        SELECT FROM ledger.delivery AS earlier
        WHERE earlier.webhook_id = p_webhook AND earlier.run_id = waiting.run_id
          AND earlier.version < waiting.version AND earlier.next_at IS NOT NULL)
      AND EXISTS (
        SELECT FROM ledger.webhook WHERE webhook.webhook_id = p_webhook AND NOT webhook.is_paused)
    ORDER BY waiting.next_at LIMIT p_limit FOR UPDATE SKIP LOCKED
  ) AS due
  WHERE delivery.webhook_id = p_webhook AND delivery.run_id = due.run_id
    AND delivery.version = due.version
  RETURNING delivery.run_id, delivery.version, delivery.type::text, delivery.body,
    delivery.attempts;
END $$;
