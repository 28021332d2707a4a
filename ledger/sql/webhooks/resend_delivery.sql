-- Sends a delivery again, under its old id, whether it was delivered, given up or waits; on
-- record. Later ones of its run follow it. Returns whether there is such a delivery. Needs the
-- right admin. Locks: the webhook, so that nothing is noted meanwhile, the open deliveries of the
-- run; waits two seconds for whoever holds them.
CREATE OR REPLACE FUNCTION ledger.resend_delivery(
  p_project text, p_actor text, p_webhook text, p_run uuid, p_version int
) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '2s'
AS $$
DECLARE
  checked boolean;
BEGIN
  checked := ledger.check_access(p_project, '{admin}', ARRAY[p_actor]);
  checked := ledger.check_given('p_actor', p_actor IS NOT NULL);
  checked := ledger.check_texts(ARRAY[p_actor], 200, true);
  PERFORM ledger.lock_row('ledger.webhook', 'webhook_id', p_project, p_webhook);
  PERFORM FROM ledger.delivery AS sent
  WHERE sent.project_id = p_project AND sent.webhook_id = p_webhook AND sent.run_id = p_run
    AND (sent.version = p_version OR sent.next_at IS NOT NULL)
  ORDER BY sent.version FOR NO KEY UPDATE;
  UPDATE ledger.delivery SET next_at = ledger.now(), follows = EXISTS (
    SELECT FROM ledger.delivery AS earlier
    WHERE earlier.webhook_id = p_webhook AND earlier.run_id = p_run
      AND earlier.version < p_version AND earlier.next_at IS NOT NULL)
  WHERE delivery.project_id = p_project AND delivery.webhook_id = p_webhook
    AND delivery.run_id = p_run AND delivery.version = p_version;
  IF NOT FOUND THEN
    RETURN false;
  END IF;
  UPDATE ledger.delivery SET follows = true
  WHERE delivery.webhook_id = p_webhook AND delivery.run_id = p_run
    AND delivery.version > p_version AND delivery.next_at IS NOT NULL AND NOT delivery.follows;
  PERFORM ledger.append_control(p_project, 'delivery.resent',
    'delivery:' || concat_ws(':', p_webhook, p_run, p_version), NULL, p_actor, NULL);
  RETURN true;
END $$;
