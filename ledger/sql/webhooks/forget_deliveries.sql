-- Forgets deliveries of a project that ended, and were noted 30 days ago: of each webhook a hundred
-- at most, whether anything is sent to it now or it is paused. Returns how many. Needs the right
-- read; see ledger.webhook_duties.
CREATE OR REPLACE FUNCTION ledger.forget_deliveries(p_project text) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  checked CONSTANT boolean := ledger.check_access(p_project, '{read}');
  -- a variable, because an index is not searched for a volatile function
  before CONSTANT timestamptz := ledger.now() - interval '30 days';
  forgotten int;
BEGIN
  DELETE FROM ledger.delivery USING (
    SELECT ended.webhook_id, ended.run_id, ended.version FROM ledger.webhook CROSS JOIN LATERAL (
      SELECT sent.webhook_id, sent.run_id, sent.version FROM ledger.delivery AS sent
      WHERE sent.webhook_id = webhook.webhook_id
        AND sent.created_at < before AND sent.next_at IS NULL
      ORDER BY sent.created_at LIMIT 100
    ) AS ended WHERE webhook.project_id = p_project
  ) AS old
  WHERE delivery.webhook_id = old.webhook_id AND delivery.run_id = old.run_id
    AND delivery.version = old.version AND delivery.next_at IS NULL;
  GET DIAGNOSTICS forgotten = ROW_COUNT;
  RETURN forgotten;
END $$;
