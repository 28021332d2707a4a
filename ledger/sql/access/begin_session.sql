-- Begins a web session of a credential, for twelve hours. Deletes sessions of the same credential
-- that ended thirty days ago, and all but its newest fifty. Internal to the owner's functions,
-- which check the credential.
CREATE OR REPLACE FUNCTION ledger.begin_session(p_credential text, p_sha256 bytea) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  moment CONSTANT timestamptz := ledger.now();
BEGIN
  IF p_sha256 IS NULL OR octet_length(p_sha256) <> 32 THEN
    RAISE EXCEPTION 'a session has a SHA-256 of 32 bytes' USING ERRCODE = '22023';
  END IF;
  DELETE FROM ledger.web_session AS s WHERE s.credential = p_credential AND (
    s.ended_at < moment - interval '30 days' OR s.expires_at < moment - interval '30 days'
    OR s.session_id IN (SELECT o.session_id FROM ledger.web_session AS o
      WHERE o.credential = p_credential ORDER BY o.created_at DESC OFFSET 50));
  INSERT INTO ledger.web_session (session_id, sha256, credential, created_at, expires_at,
    last_used_at)
  VALUES (left(replace(gen_random_uuid()::text, '-', ''), 12), p_sha256, p_credential, moment,
    moment + interval '12 hours', moment);
END $$;
