-- Records how an attempt at a delivery ended. p_again: after how long it is tried again. Null with
-- an error: it is given up; null without one: it is delivered. An attempt that another sender has
-- recorded already is left as it is. Where it ended, the next delivery of the run is due. A webhook
-- whose endpoint is gone (410) is paused. Needs the right read; see ledger.webhook_duties. Locks:
-- the webhook if it may be paused, the delivery, the next of its run.
CREATE OR REPLACE FUNCTION ledger.record_attempt(
  p_project text, p_webhook text, p_run uuid, p_version int, p_attempt int, p_duration_ms int,
  p_status int, p_error text, p_again interval
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_hashjoin = off
SET enable_mergejoin = off
SET enable_seqscan = off
SET enable_bitmapscan = off
SET jit = off
AS $$
DECLARE
  checked boolean;
BEGIN
  checked := ledger.check_access(p_project, '{read}');
  IF p_again NOT BETWEEN '0' AND '30 days' OR (p_duration_ms >= 0) IS NOT TRUE THEN
    RAISE EXCEPTION 'an attempt lasted 0 ms or more, and the next is within 30 days'
      USING ERRCODE = '22023';
  END IF;
  IF p_status = 410 THEN -- before its delivery, as ledger.queue_deliveries locks them
    PERFORM FROM ledger.webhook
    WHERE webhook.project_id = p_project AND webhook.webhook_id = p_webhook FOR NO KEY UPDATE;
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
    IF p_again IS NULL THEN
      UPDATE ledger.delivery SET follows = false
      WHERE delivery.webhook_id = p_webhook AND delivery.run_id = p_run AND delivery.follows
        AND delivery.version = (
          SELECT waiting.version FROM ledger.delivery AS waiting
          WHERE waiting.webhook_id = p_webhook AND waiting.run_id = p_run
            AND waiting.next_at IS NOT NULL
          ORDER BY waiting.version LIMIT 1);
    END IF;
    IF p_status = 410 THEN -- the endpoint is gone, and says so
      UPDATE ledger.webhook SET is_paused = true, actor = ledger.credential(),
        reason = 'the endpoint answered 410'
      WHERE webhook.webhook_id = p_webhook AND NOT webhook.is_paused;
    END IF;
  END IF;
END $$;
