-- Returns token:<id> of the API token with this secret. Raises RF401 for a secret that is unknown,
-- revoked or past its end: all three look alike. Only the secret's SHA-256 is stored.
CREATE OR REPLACE FUNCTION ledger.token_credential(p_secret text) RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  found text;
BEGIN
  SELECT 'token:' || t.token_id INTO found FROM ledger.api_token AS t
  WHERE t.sha256 = sha256(convert_to(p_secret, 'UTF8')) AND t.revoked_at IS NULL
    AND t.expires_at > clock_timestamp();
  IF found IS NULL THEN
    RAISE EXCEPTION 'the API token is unknown, revoked or past its end' USING ERRCODE = 'RF401';
  END IF;
  RETURN found;
END $$;
