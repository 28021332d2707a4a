-- Ends a web session; returns whether it was still usable. With p_secret it needs no right, because
-- the secret is the right; else, by the session's id, it needs the right admin in all projects.
-- Locks: the session's row. Whoever has the secret may leave it locked, so it is waited for two
-- seconds; then 55P03 names the remedies, which need no lock of it.
CREATE OR REPLACE FUNCTION ledger.end_session(p_secret text, p_session text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '2s'
AS $$
DECLARE
  checked boolean;
BEGIN
  IF p_secret IS NULL THEN
    checked := ledger.check_access('*', '{admin}');
  END IF;
  UPDATE ledger.web_session AS session SET ended_at = ledger.now()
  WHERE session.ended_at IS NULL AND session.expires_at > ledger.now()
    AND (session.sha256 = sha256(convert_to(p_secret, 'UTF8'))
      OR p_secret IS NULL AND session.session_id = p_session);
  RETURN FOUND;
EXCEPTION WHEN lock_not_available THEN
  RAISE EXCEPTION 'another transaction holds the session: disable the user or revoke the token, '
    'which waits for nobody' USING ERRCODE = '55P03';
END $$;
