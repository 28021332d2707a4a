-- Begins a web session of a credential, for twelve hours; of a user with the account's changed_at.
-- Deletes sessions of the same credential that ended thirty days ago, and all but its newest fifty.
-- Internal to the owner's functions, which check the credential. Locks: the sessions that it
-- deletes, SKIP LOCKED.
CREATE OR REPLACE FUNCTION ledger.begin_session(
  p_credential text, p_sha256 bytea, p_user_changed_at timestamptz DEFAULT NULL
) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  moment CONSTANT timestamptz := ledger.now();
BEGIN
  IF p_sha256 IS NULL OR octet_length(p_sha256) <> 32 THEN
    RAISE EXCEPTION 'a session has a SHA-256 of 32 bytes' USING ERRCODE = '22023';
  END IF;
  DELETE FROM ledger.web_session AS session WHERE session.session_id IN (
    SELECT ended.session_id FROM ledger.web_session AS ended
    WHERE ended.credential = p_credential AND (
      ended.ended_at < moment - interval '30 days' OR ended.expires_at < moment - interval '30 days'
      OR ended.session_id IN (SELECT own.session_id FROM ledger.web_session AS own
        WHERE own.credential = p_credential ORDER BY own.created_at DESC OFFSET 50))
    FOR UPDATE SKIP LOCKED);
  INSERT INTO ledger.web_session (session_id, sha256, credential, created_at, expires_at,
    last_used_at, user_changed_at)
  VALUES (left(replace(gen_random_uuid()::text, '-', ''), 12), p_sha256, p_credential, moment,
    moment + interval '12 hours', moment, p_user_changed_at);
END $$;
