-- Forgets deliveries of a project that ended, and were noted 30 days ago: of each webhook a hundred
-- at most, whether anything is sent to it now or it is paused. Returns how many. Needs the right
-- read; see ledger.webhook_duties.
CREATE OR REPLACE FUNCTION ledger.forget_deliveries(p_project text) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  checked CONSTANT boolean := ledger.check_access(p_project, '{read}');
  forgotten int;
BEGIN
  DELETE FROM ledger.delivery AS d USING (
    SELECT o.webhook_id, o.run_id, o.version FROM ledger.webhook AS w CROSS JOIN LATERAL (
      SELECT e.webhook_id, e.run_id, e.version FROM ledger.delivery AS e
      WHERE e.webhook_id = w.webhook_id AND e.created_at < ledger.now() - interval '30 days'
        AND e.next_at IS NULL
      ORDER BY e.created_at LIMIT 100
    ) AS o WHERE w.project_id = p_project
  ) AS old
  WHERE d.webhook_id = old.webhook_id AND d.run_id = old.run_id AND d.version = old.version
    AND d.next_at IS NULL;
  GET DIAGNOSTICS forgotten = ROW_COUNT;
  RETURN forgotten;
END $$;
