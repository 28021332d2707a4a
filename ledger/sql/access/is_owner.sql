-- Whether the session writes as the ledger's owner, who may do everything: a set-up with one login
-- needs no grants. An API token has its own rights only, no matter who presents it. Internal to the
-- owner's functions: there current_user is the owner.
CREATE OR REPLACE FUNCTION ledger.is_owner() RETURNS boolean
LANGUAGE sql STABLE
AS $$
  SELECT coalesce(current_setting('runfold.token', true), '') = ''
    AND pg_has_role(session_user, current_user, 'MEMBER')
$$;
