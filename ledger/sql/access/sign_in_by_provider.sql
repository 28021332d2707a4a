-- Begins a web session of the user whom an identity provider named; returns user:<name>, or null
-- for a subject that nobody added. The caller vouches for what the provider said, so it needs the
-- right admin in all projects.
CREATE OR REPLACE FUNCTION ledger.sign_in_by_provider(
  p_issuer text, p_subject text, p_sha256 bytea
) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  found text;
  checked CONSTANT boolean := ledger.check_access('*', '{admin}');
BEGIN
  UPDATE ledger.user_account AS u SET last_used_at = ledger.now()
  WHERE u.issuer = p_issuer AND u.subject = p_subject AND u.disabled_at IS NULL
  RETURNING u.name INTO found;
  IF found IS NULL THEN
    RETURN NULL;
  END IF;
  PERFORM ledger.begin_session('user:' || found, p_sha256);
  RETURN 'user:' || found;
END $$;
