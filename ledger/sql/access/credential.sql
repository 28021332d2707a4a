-- Names the credential that writes: the login, which no setting changes, or that of the secret in
-- the setting runfold.token: token:<id>, or user:<name> of a web session.
-- Every event carries it. Inlined into the statements that append.
CREATE OR REPLACE FUNCTION ledger.credential() RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
  SELECT CASE WHEN current_setting('runfold.token', true) <> ''
    THEN ledger.token_credential(current_setting('runfold.token', true))
    -- A login may have any name: none passes for a token or a user.
    WHEN session_user LIKE 'token:%' OR session_user LIKE 'user:%' THEN 'login:' || session_user
    ELSE session_user::text END
$$;
