-- Names the credential that writes: the login, which no setting changes, or token:<id> for the API
-- token that the session presents in the setting runfold.token. Every event carries it. Inlined
-- into the statements that append.
CREATE OR REPLACE FUNCTION ledger.credential() RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
  SELECT CASE WHEN current_setting('runfold.token', true) <> ''
    THEN ledger.token_credential(current_setting('runfold.token', true))
    ELSE session_user::text END
$$;
