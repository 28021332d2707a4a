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
  account ledger.user_account;
  checked CONSTANT boolean := ledger.check_access('*', '{admin}');
BEGIN
  SELECT known.* INTO account FROM ledger.user_account AS known
  WHERE known.issuer = p_issuer AND known.subject = p_subject AND known.disabled_at IS NULL;
  IF NOT FOUND THEN
    RETURN NULL;
  END IF;
  PERFORM ledger.note_use('user:' || account.name, false);
  PERFORM ledger.begin_session('user:' || account.name, p_sha256, account.changed_at);
  RETURN 'user:' || account.name;
END $$;
