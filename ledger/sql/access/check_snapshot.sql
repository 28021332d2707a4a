-- Raises 40001 if what gives the session's credential its rights was changed since the snapshot of
-- the transaction, which shows what was revoked since as if it held. To lock a row shows whether it
-- was changed; the locks go with the subtransaction, so that none holds up a revocation.
-- Internal to ledger.check_access.
CREATE OR REPLACE FUNCTION ledger.check_snapshot() RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  writer CONSTANT text := ledger.credential();
  secret CONSTANT text := coalesce(current_setting('runfold.token', true), '');
BEGIN
  PERFORM FROM ledger.access_grant AS granted WHERE granted.credential = writer FOR SHARE NOWAIT;
  IF secret <> '' THEN
    PERFORM FROM ledger.api_token AS token WHERE 'token:' || token.token_id = writer
    FOR SHARE NOWAIT;
    PERFORM FROM ledger.user_account AS account WHERE 'user:' || account.name = writer
    FOR SHARE NOWAIT;
    PERFORM FROM ledger.web_session AS session
    WHERE session.sha256 = sha256(convert_to(secret, 'UTF8')) FOR SHARE NOWAIT;
  END IF;
  RAISE EXCEPTION 'nothing was changed' USING ERRCODE = 'RF000';
EXCEPTION
  WHEN SQLSTATE 'RF000' THEN
    RETURN;
  WHEN lock_not_available THEN
    RAISE EXCEPTION 'the rights of % are being changed: try again', writer
      USING ERRCODE = '40001';
END $$;
