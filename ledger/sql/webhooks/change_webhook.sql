-- Makes a webhook, pauses or resumes it, or removes it with its deliveries, on record; returns its
-- id, or null where nothing changed. The id of a new one is drawn here: one that a caller named
-- would tell by its refusal that another project has it. A new one is sent what happens from now
-- on, and so is one that is resumed with p_from_now; a resumed one is otherwise sent what it
-- missed. Needs the right admin. Locks: the webhook, and what goes with it; waits two seconds for
-- its sender.
CREATE OR REPLACE FUNCTION ledger.change_webhook(
  p_project text, p_actor text, p_webhook text, p_action text, p_url text, p_events text[],
  p_kinds text[], p_secret bytea, p_from_now boolean, p_reason text
) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '2s'
AS $$
DECLARE
  checked boolean;
  new_id CONSTANT text := 'wh_' || left(replace(gen_random_uuid()::text, '-', ''), 12);
  remote CONSTANT text := '^[hH][tT][tT][pP][sS]://[^/?#@]+([/?#]|$)';
  loopback CONSTANT text := E'^http://(localhost|127\\.0\\.0\\.1|\\[::1\\])(:[0-9]+)?([/?#]|$)';
  checkpoint_now text := (SELECT feed.generation || '/' || feed.moment || '//0'
    FROM ledger.feed_now() AS feed);
BEGIN
  checked := ledger.check_access(p_project, '{admin}', ARRAY[p_actor]);
  checked := ledger.check_project(p_project);
  checked := ledger.check_given('p_actor', p_actor IS NOT NULL);
  checked := ledger.check_given('p_action', p_action IS NOT NULL);
  checked := ledger.check_texts(ARRAY[p_actor], 200, true);
  checked := ledger.check_texts(ARRAY[p_webhook], 40, true);
  checked := ledger.check_texts(ARRAY[p_reason], 2000);
  PERFORM ledger.lock_row('ledger.webhook', 'webhook_id', p_project, p_webhook);
  IF p_action IN ('pause', 'resume') THEN
    UPDATE ledger.webhook SET is_paused = p_action = 'pause', actor = p_actor,
      reason = p_reason, checkpoint = CASE WHEN p_from_now THEN checkpoint_now
        ELSE webhook.checkpoint END
    WHERE webhook.project_id = p_project AND webhook.webhook_id = p_webhook
      AND webhook.is_paused = (p_action = 'resume');
    RETURN CASE WHEN FOUND THEN p_webhook END;
  END IF;
  IF p_action = 'remove' THEN
    -- The control history records the row as it was removed, so the row must name who removes it.
    UPDATE ledger.webhook SET actor = p_actor, reason = p_reason
    WHERE webhook.project_id = p_project AND webhook.webhook_id = p_webhook;
    DELETE FROM ledger.webhook
    WHERE webhook.project_id = p_project AND webhook.webhook_id = p_webhook;
    RETURN CASE WHEN FOUND THEN p_webhook END;
  END IF;
  checked := ledger.check_texts(ARRAY[p_url], 2000, true);
  checked := ledger.check_given('p_events', num_nulls(VARIADIC p_events) = 0);
  checked := ledger.check_given('p_kinds', num_nulls(VARIADIC p_kinds) = 0);
  checked := ledger.check_types(p_events, array_fill(1, ARRAY[cardinality(p_events)]));
  checked := ledger.check_texts(p_kinds, 200, true);
  IF p_action <> 'add' OR p_webhook IS NOT NULL
    OR p_url IS NULL OR p_url !~ remote AND p_url !~ loopback OR p_url !~ '^[!-~]+$'
    OR coalesce(octet_length(p_secret), 0) NOT BETWEEN 24 AND 64
    OR cardinality(p_events) > 100 OR cardinality(p_kinds) > 100 THEN
    RAISE EXCEPTION 'a new webhook has an https URL without a password, a secret of 24 to 64 '
      'bytes, at most 100 types and kinds, and no id yet' USING ERRCODE = '22023';
  END IF;
  IF EXISTS (SELECT FROM unnest(p_events) AS named (type) WHERE NOT ledger.is_type(named.type)) THEN
    RAISE EXCEPTION '% are not all types of events', array_to_string(p_events, ', ')
      USING ERRCODE = '22023';
  END IF;
  IF (SELECT count(*) FROM ledger.webhook WHERE webhook.project_id = p_project) >= 50 THEN
    RAISE EXCEPTION 'project % has 50 webhooks already: remove one', p_project
      USING ERRCODE = '22023';
  END IF;
  INSERT INTO ledger.webhook
    (project_id, webhook_id, url, events, kinds, checkpoint, actor, reason)
  VALUES (p_project, new_id, p_url, p_events, p_kinds, checkpoint_now, p_actor, p_reason);
  INSERT INTO ledger.webhook_secret (webhook_id, secret) VALUES (new_id, p_secret);
  RETURN new_id;
END $$;
