-- Sends a delivery again, under its old id, whether it was delivered, given up or waits; on
-- record. Returns whether there is such a delivery. Needs the right admin.
CREATE OR REPLACE FUNCTION ledger.resend_delivery(
  p_project text, p_actor text, p_webhook text, p_run uuid, p_version int
) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  checked boolean;
BEGIN
  checked := ledger.check_access(p_project, '{admin}', ARRAY[p_actor]);
  checked := ledger.check_given('p_actor', p_actor IS NOT NULL);
  checked := ledger.check_texts(ARRAY[p_actor], 200, true);
  UPDATE ledger.delivery SET next_at = ledger.now()
  WHERE delivery.project_id = p_project AND delivery.webhook_id = p_webhook
    AND delivery.run_id = p_run AND delivery.version = p_version;
  IF NOT FOUND THEN
    RETURN false;
  END IF;
  PERFORM ledger.append_control(p_project, 'delivery.resent',
    'delivery:' || concat_ws(':', p_webhook, p_run, p_version), NULL, p_actor, NULL);
  RETURN true;
END $$;
