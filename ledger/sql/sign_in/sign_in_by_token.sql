-- Begins a web session for the secret of an API token; returns its credential, or null for a secret
-- that is unknown, revoked or past its end. Needs no right: the secret is the right.
CREATE OR REPLACE FUNCTION ledger.sign_in_by_token(p_secret text, p_sha256 bytea) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  found CONSTANT text := ledger.use_token(p_secret);
BEGIN
  IF found IS NULL OR starts_with(p_secret, 'runfold_session_') THEN
    RETURN NULL;
  END IF;
  PERFORM ledger.begin_session(found, p_sha256);
  RETURN found;
END $$;
