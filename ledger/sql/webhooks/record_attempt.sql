-- Records how an attempt at a delivery ended. p_again: after how long it is tried again. Null with
-- an error: it is given up; null without one: it is delivered. An attempt that another sender has
-- recorded already is left as it is. A webhook whose endpoint is gone (410) is paused. Needs the
-- right read; see ledger.webhook_duties.
CREATE OR REPLACE FUNCTION ledger.record_attempt(
  p_project text, p_webhook text, p_run uuid, p_version int, p_attempt int, p_duration_ms int,
  p_status int, p_error text, p_again interval
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  checked boolean;
BEGIN
  checked := ledger.check_access(p_project, '{read}');
  IF p_again NOT BETWEEN '0' AND '30 days' OR (p_duration_ms >= 0) IS NOT TRUE THEN
    RAISE EXCEPTION 'an attempt lasted 0 ms or more, and the next is within 30 days'
      USING ERRCODE = '22023';
  END IF;
  UPDATE ledger.delivery SET attempts = p_attempt, next_at = ledger.now() + p_again,
    delivered_at = CASE WHEN p_error IS NULL THEN ledger.now() ELSE delivery.delivered_at END
  WHERE delivery.project_id = p_project AND delivery.webhook_id = p_webhook
    AND delivery.run_id = p_run AND delivery.version = p_version
    AND delivery.attempts + 1 = p_attempt;
  IF FOUND THEN
    INSERT INTO ledger.delivery_attempt (project_id, webhook_id, run_id, version, attempt,
      attempted_at, duration_ms, status, error)
    VALUES (p_project, p_webhook, p_run, p_version, p_attempt, ledger.now(), p_duration_ms,
      p_status, left(p_error, 500));
    IF p_status = 410 THEN -- the endpoint is gone, and says so
      UPDATE ledger.webhook SET is_paused = true, actor = ledger.credential(),
        reason = 'the endpoint answered 410'
      WHERE webhook.webhook_id = p_webhook AND NOT webhook.is_paused;
    END IF;
  END IF;
END $$;
