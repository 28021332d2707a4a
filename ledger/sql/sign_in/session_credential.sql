-- Returns the credential of a web session's secret; null for a session that is unknown, was ended,
-- is past its end or was not used for two hours, or whose token was revoked or user changed since
-- it began. Internal to the owner's functions.
CREATE OR REPLACE FUNCTION ledger.session_credential(p_secret text) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT session.credential FROM ledger.web_session AS session
  WHERE session.sha256 = sha256(convert_to(p_secret, 'UTF8')) AND session.ended_at IS NULL
    AND session.expires_at > ledger.now()
    AND session.last_used_at > ledger.now() - interval '2 hours'
    AND (EXISTS (SELECT FROM ledger.api_token AS token
        WHERE session.credential = 'token:' || token.token_id AND token.revoked_at IS NULL
          AND token.expires_at > ledger.now())
      OR EXISTS (SELECT FROM ledger.user_account AS account
        WHERE session.credential = 'user:' || account.name AND account.disabled_at IS NULL
          AND account.changed_at = session.user_changed_at))
$$;
