-- Returns the credential of a web session's secret; null for a session that is unknown, was ended,
-- is past its end or was not used for two hours, or whose token was revoked or user changed since
-- it began. Internal to the owner's functions.
CREATE OR REPLACE FUNCTION ledger.session_credential(p_secret text) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT s.credential FROM ledger.web_session AS s
  WHERE s.sha256 = sha256(convert_to(p_secret, 'UTF8')) AND s.ended_at IS NULL
    AND s.expires_at > ledger.now()
    AND s.last_used_at > ledger.now() - interval '2 hours'
    AND (EXISTS (SELECT FROM ledger.api_token AS t
        WHERE s.credential = 'token:' || t.token_id AND t.revoked_at IS NULL
          AND t.expires_at > ledger.now())
      OR EXISTS (SELECT FROM ledger.user_account AS u
        WHERE s.credential = 'user:' || u.name AND u.disabled_at IS NULL
          AND u.changed_at = s.user_changed_at))
$$;
