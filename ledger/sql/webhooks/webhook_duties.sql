-- The webhooks of a project that are not paused, with the secrets that sign what is sent to them:
-- for their sender, a login with runfold_projector and the right read.
CREATE OR REPLACE FUNCTION ledger.webhook_duties(p_project text)
  RETURNS TABLE (webhook_id text, url text, events text[], kinds text[], checkpoint text,
    secret bytea)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM ledger.check_access(p_project, '{read}');
  RETURN QUERY SELECT webhook.webhook_id::text, webhook.url::text, webhook.events, webhook.kinds,
    webhook.checkpoint, signing.secret
  FROM ledger.webhook
  JOIN ledger.webhook_secret AS signing ON signing.webhook_id = webhook.webhook_id
  WHERE webhook.project_id = p_project AND NOT webhook.is_paused
  ORDER BY webhook.webhook_id;
END $$;
