-- Returns the credential for the secret of an API token or a web session, or null. Records when the
-- secret was last used, at most once a minute, and counts the tries of a token that is revoked or
-- past its end. For programs that let others in; needs no right, because the secret is the right.
-- Locks: the session or the token's use, SKIP LOCKED.
CREATE OR REPLACE FUNCTION ledger.use_token(p_secret text) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  token ledger.api_token;
  moment CONSTANT timestamptz := ledger.now();
  found text;
BEGIN
  IF starts_with(p_secret, 'runfold_session_') THEN
    found := ledger.session_credential(p_secret);
    UPDATE ledger.web_session AS session SET last_used_at = moment
    WHERE session.session_id = (
      SELECT locked.session_id FROM ledger.web_session AS locked
      WHERE found IS NOT NULL AND locked.sha256 = sha256(convert_to(p_secret, 'UTF8'))
        AND locked.last_used_at < moment - interval '1 minute'
      FOR UPDATE SKIP LOCKED);
    RETURN found;
  END IF;
  SELECT * INTO token FROM ledger.api_token AS known
  WHERE known.sha256 = sha256(convert_to(p_secret, 'UTF8'));
  IF token.revoked_at IS NOT NULL OR token.expires_at <= moment THEN
    PERFORM ledger.note_use('token:' || token.token_id, true);
    RETURN NULL;
  END IF;
  PERFORM ledger.note_use('token:' || token.token_id, false);
  RETURN 'token:' || token.token_id;
END $$;
