-- Returns the credential of the secret of an API token, token:<id>, or of a web session, which is
-- that of the token or the user that signed in. Raises RF401 for a secret that is unknown, revoked
-- or past its end: all look alike. Only the secret's SHA-256 is stored.
CREATE OR REPLACE FUNCTION ledger.token_credential(p_secret text) RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  found text;
BEGIN
  IF starts_with(p_secret, 'runfold_session_') THEN
    found := ledger.session_credential(p_secret);
  ELSE
    SELECT 'token:' || token.token_id INTO found FROM ledger.api_token AS token
    WHERE token.sha256 = sha256(convert_to(p_secret, 'UTF8')) AND token.revoked_at IS NULL
      AND token.expires_at > ledger.now();
  END IF;
  IF found IS NULL THEN
    RAISE EXCEPTION 'the API token is unknown, revoked or past its end' USING ERRCODE = 'RF401';
  END IF;
  RETURN found;
END $$;
