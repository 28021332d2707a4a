-- Creates an API token or revokes one, on record. Only the SHA-256 of the secret is passed and
-- kept. Its rights are granted to the credential token:<id>. Needs the right admin in all projects.
-- Locks: the database's list of the control history.
CREATE OR REPLACE FUNCTION ledger.change_token(
  p_actor text, p_token text, p_sha256 bytea, p_name text, p_lifetime interval, p_reason text
) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  checked boolean;
BEGIN
  checked := ledger.check_access('*', '{admin}', ARRAY[p_actor]);
  checked := ledger.check_given('p_actor', p_actor IS NOT NULL);
  checked := ledger.check_given('p_token', p_token IS NOT NULL);
  checked := ledger.check_given('p_name', p_name IS NOT NULL OR p_sha256 IS NULL);
  checked := ledger.check_texts(ARRAY[p_actor], 200, true);
  checked := ledger.check_texts(ARRAY[p_token], 40, true);
  checked := ledger.check_texts(ARRAY[p_name]);
  checked := ledger.check_texts(ARRAY[p_reason], 2000);
  PERFORM ledger.lock_control('*');
  IF p_sha256 IS NULL THEN
    UPDATE ledger.api_token AS token SET revoked_at = ledger.now(), actor = p_actor,
      reason = p_reason
    WHERE token.token_id = p_token AND token.revoked_at IS NULL;
    RETURN FOUND;
  END IF;
  IF octet_length(p_sha256) <> 32 OR p_lifetime IS NULL
    OR p_lifetime NOT BETWEEN '0' AND '3650 days' THEN
    RAISE EXCEPTION 'a token has a SHA-256 of 32 bytes, and ends within ten years'
      USING ERRCODE = '22023';
  END IF;
  INSERT INTO ledger.api_token (token_id, sha256, name, created_at, expires_at, actor, reason)
  VALUES (p_token, p_sha256, p_name, ledger.now(), ledger.now() + p_lifetime, p_actor, p_reason);
  INSERT INTO ledger.credential_use (credential) VALUES ('token:' || p_token)
  ON CONFLICT DO NOTHING;
  RETURN true;
END $$;
