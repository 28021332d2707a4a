-- Records that a token or a user signed in (p_failed false; at most once a minute), that a try
-- failed (true), or that earlier failures no longer count (null). Does nothing while another
-- session holds the row, which it may for as long as it likes. Internal to the owner's functions.
-- Locks: the credential's row of credential_use, SKIP LOCKED.
CREATE OR REPLACE FUNCTION ledger.note_use(p_credential text, p_failed boolean) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  moment CONSTANT timestamptz := ledger.now();
BEGIN
  UPDATE ledger.credential_use AS use SET
    last_used_at = CASE WHEN NOT p_failed THEN moment ELSE use.last_used_at END,
    failed_uses = CASE WHEN p_failed THEN least(use.failed_uses + 1, 1000000) ELSE 0 END,
    last_failed_at = CASE WHEN p_failed THEN moment ELSE use.last_failed_at END
  WHERE use.credential = (
    SELECT locked.credential FROM ledger.credential_use AS locked
    WHERE locked.credential = p_credential AND (p_failed OR locked.failed_uses > 0
      OR NOT p_failed AND (locked.last_used_at > moment - interval '1 minute') IS NOT TRUE)
    FOR UPDATE SKIP LOCKED);
END $$;
