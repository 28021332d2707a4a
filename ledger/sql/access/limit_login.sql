-- Sets the time limits of a login with rights in this database, where nobody has set one, and
-- removes what it set from a login without rights, where the ledger's owner may. On record in the
-- project's list. Internal to ledger.change_access. Locks: where that changes something, the row of
-- the login's settings. Waits two seconds for it; after that, or where the owner may not, it only
-- warns: no grant and no revocation should fail for want of a default.
CREATE OR REPLACE FUNCTION ledger.limit_login(
  p_project text, p_actor text, p_credential text, p_reason text
) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '2s'
AS $$
DECLARE
  has_rights CONSTANT boolean := EXISTS (SELECT FROM ledger.access_grant AS granted
    WHERE granted.credential = p_credential AND cardinality(granted.rights) > 0);
  here CONSTANT text := format('ALTER ROLE %I IN DATABASE %I ', p_credential, current_database());
  changed jsonb;
  change text;
BEGIN
  SELECT jsonb_object_agg(bound.name, CASE WHEN has_rights THEN bound.value END) INTO changed
  FROM pg_roles AS login
  JOIN pg_database AS this_database ON this_database.datname = current_database()
  CROSS JOIN ledger.login_limits() AS bound
  WHERE login.rolname = p_credential AND login.rolcanlogin
    AND NOT pg_has_role(login.oid, current_user, 'MEMBER')
    AND has_rights <> EXISTS (
      SELECT FROM pg_db_role_setting AS kept CROSS JOIN unnest(kept.setconfig) AS line (setting)
      WHERE CASE WHEN has_rights
        THEN kept.setrole IN (0, login.oid) AND kept.setdatabase IN (0, this_database.oid)
          AND split_part(line.setting, '=', 1) = bound.name
        ELSE kept.setrole = login.oid AND kept.setdatabase = this_database.oid
          AND line.setting = bound.name || '=' || bound.value END);
  IF changed IS NULL THEN
    RETURN;
  END IF;
  FOR change IN SELECT CASE WHEN has_rights THEN format('SET %I = %L', wanted.key, wanted.value)
      ELSE format('RESET %I', wanted.key) END FROM jsonb_each_text(changed) AS wanted LOOP
    EXECUTE here || change;
  END LOOP;
  PERFORM ledger.append_control(p_project, CASE WHEN has_rights THEN 'limits.set'
    ELSE 'limits.reset' END, 'limits:' || p_credential, changed::text, p_actor, p_reason);
EXCEPTION
  WHEN insufficient_privilege THEN
    RAISE WARNING 'the time limits of login % are left as they are: the ledger''s owner may not '
      'change them, an administrator may', p_credential;
  WHEN lock_not_available OR internal_error OR unique_violation OR undefined_object THEN
    RAISE WARNING 'the time limits of login % are left as they are: another change of its settings '
      'is at work', p_credential;
END $$;
