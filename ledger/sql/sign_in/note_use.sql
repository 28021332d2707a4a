-- Records that a token or a user signed in (p_failed false; at most once a minute), that a try
-- failed (true), or that earlier failures no longer count (null: those by all logins). Passwords
-- count for the login by which they are tried, and p_try is remembered with its transaction. Does
-- nothing while another session holds the row, which it may for as long as it likes. Internal to
-- the owner's functions.
-- Locks: rows of credential_use for the credential, SKIP LOCKED.
CREATE OR REPLACE FUNCTION ledger.note_use(
  p_credential text, p_failed boolean, p_login text DEFAULT '', p_try bytea DEFAULT NULL
) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  moment CONSTANT timestamptz := ledger.now();
BEGIN
  UPDATE ledger.credential_use AS use SET
    last_used_at = CASE WHEN NOT p_failed THEN moment ELSE use.last_used_at END,
    failed_uses = CASE WHEN p_failed THEN least(use.failed_uses + 1, 1000000) ELSE 0 END,
    last_failed_at = CASE WHEN p_failed THEN moment ELSE use.last_failed_at END,
    try_sha256 = p_try,
    try_txid = CASE WHEN p_try IS NOT NULL THEN pg_current_xact_id() END
  FROM (
    SELECT kept.credential, kept.login FROM ledger.credential_use AS kept
    WHERE kept.credential = p_credential AND (p_failed IS NULL OR kept.login = p_login)
      AND (p_failed OR kept.failed_uses > 0
        OR NOT p_failed AND (kept.last_used_at > moment - interval '1 minute') IS NOT TRUE)
    FOR UPDATE SKIP LOCKED) AS locked
  WHERE use.credential = locked.credential AND use.login = locked.login;
END $$;
