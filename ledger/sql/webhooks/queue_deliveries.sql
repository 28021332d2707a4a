-- Notes what is to be sent to a webhook, and how far its sender has looked; false: another sender
-- was there first, or the webhook is paused, and nothing is noted. The place it has come to must be
-- one of this feed: with another no sender could go on. A delivery follows the open ones of its
-- run. Needs the right read; see ledger.webhook_duties. Locks: the webhook, then of each run the
-- newest delivery that has not ended.
CREATE OR REPLACE FUNCTION ledger.queue_deliveries(
  p_project text, p_webhook text, p_before text, p_checkpoint text,
  p_runs uuid[], p_versions int[], p_types text[], p_bodies text[]
) RETURNS boolean
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
  checked := ledger.check_count(cardinality(p_runs));
  checked := ledger.check_given('p_checkpoint', p_checkpoint IS NOT NULL);
  checked := ledger.check_given('p_runs', num_nulls(VARIADIC p_runs) = 0);
  checked := ledger.check_given('p_versions',
    num_nonnulls(VARIADIC p_versions) = cardinality(p_runs));
  checked := ledger.check_given('p_types', num_nonnulls(VARIADIC p_types) = cardinality(p_runs));
  checked := ledger.check_given('p_bodies', num_nonnulls(VARIADIC p_bodies) = cardinality(p_runs));
  checked := ledger.check_texts(p_types, 80);
  checked := ledger.check_checkpoint(p_checkpoint);
  IF EXISTS (SELECT FROM unnest(p_bodies) AS noted (body) WHERE length(noted.body) > 10000) THEN
    RAISE EXCEPTION 'the body of a delivery has at most 10,000 characters' USING ERRCODE = '22023';
  END IF;
  UPDATE ledger.webhook SET checkpoint = p_checkpoint
  WHERE webhook.project_id = p_project AND webhook.webhook_id = p_webhook
    AND webhook.checkpoint = p_before AND NOT webhook.is_paused;
  IF NOT FOUND THEN
    RETURN false;
  END IF;
  -- Whoever ends the newest open delivery of a run waits for this call, and sees what it notes.
  PERFORM FROM (SELECT DISTINCT unnest(p_runs) AS run_id ORDER BY run_id) AS noted
  CROSS JOIN LATERAL (
    SELECT FROM ledger.delivery AS newest
    WHERE newest.webhook_id = p_webhook AND newest.run_id = noted.run_id
      AND newest.next_at IS NOT NULL
    ORDER BY newest.version DESC LIMIT 1 FOR NO KEY UPDATE
  ) AS newest;
  INSERT INTO ledger.delivery
    (project_id, webhook_id, run_id, version, type, body, created_at, next_at, follows)
  SELECT p_project, p_webhook, noted.run_id, noted.version, noted.type, noted.body, ledger.now(),
    ledger.now(), EXISTS (
      SELECT FROM ledger.delivery AS earlier
      WHERE earlier.webhook_id = p_webhook AND earlier.run_id = noted.run_id
        AND earlier.version < noted.version AND earlier.next_at IS NOT NULL)
      OR rank() OVER (PARTITION BY noted.run_id ORDER BY noted.version) > 1
  FROM unnest(p_runs, p_versions, p_types, p_bodies) AS noted (run_id, version, type, body)
  WHERE NOT EXISTS (
    SELECT FROM ledger.delivery AS known
    WHERE known.webhook_id = p_webhook AND known.run_id = noted.run_id
      AND known.version = noted.version)
  ON CONFLICT DO NOTHING;
  RETURN true;
END $$;
