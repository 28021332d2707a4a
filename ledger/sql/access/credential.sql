-- Returns the credential that writes: the login, which no setting changes, or that of the secret in
-- the setting runfold.token: token:<id>, or user:<name> of a web session. Every event carries it.
-- Inlined into the statements that append. A policy calls it with the caller's search_path, so
-- operators are named in full: one that the caller has made could return another's name.
CREATE OR REPLACE FUNCTION ledger.credential() RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
  SELECT CASE
    WHEN pg_catalog.current_setting('runfold.token', true) OPERATOR(pg_catalog.<>) ''
    THEN ledger.token_credential(pg_catalog.current_setting('runfold.token', true))
    -- A login may have any name, and must not pass for a token or a user.
    WHEN pg_catalog.starts_with(session_user::text, 'token:')
      OR pg_catalog.starts_with(session_user::text, 'user:')
    THEN pg_catalog.concat('login:', session_user::text)
    ELSE session_user::text END
$$;
