-- The webhooks of a project that are not paused, with the secrets that sign what is sent to them:
-- for their keeper, a login with runfold_projector and the right read.
CREATE OR REPLACE FUNCTION ledger.webhook_duties(p_project text)
  RETURNS TABLE (webhook_id text, url text, events text[], kinds text[], checkpoint text,
    secret bytea)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM ledger.check_access(p_project, '{read}');
  RETURN QUERY SELECT w.webhook_id::text, w.url::text, w.events, w.kinds, w.checkpoint, s.secret
  FROM ledger.webhook AS w JOIN ledger.webhook_secret AS s ON s.webhook_id = w.webhook_id
  WHERE w.project_id = p_project AND NOT w.is_paused
  ORDER BY w.webhook_id;
END $$;
