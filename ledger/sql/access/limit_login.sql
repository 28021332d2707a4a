-- Sets the time limits of a login with rights in this database, where nobody has set one, or takes
-- back what it set from a login without rights, where the ledger's owner may. On record in the
-- project's list. Internal to ledger.change_access. Locks: where that changes something, the row of
-- the login's settings. Waits for it for two seconds; then, or where the owner may not, it warns:
-- the limits are defaults, and stop no grant and no revocation.
CREATE OR REPLACE FUNCTION ledger.limit_login(
  p_project text, p_actor text, p_credential text, p_reason text
) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '2s'
AS $$
DECLARE
  has_rights CONSTANT boolean := EXISTS (SELECT FROM ledger.access_grant AS g
    WHERE g.credential = p_credential AND cardinality(g.rights) > 0);
  here CONSTANT text := format('ALTER ROLE %I IN DATABASE %I ', p_credential, current_database());
  changed jsonb;
  change text;
BEGIN
  SELECT jsonb_object_agg(l.name, CASE WHEN has_rights THEN l.value END) INTO changed
  FROM pg_roles AS r JOIN pg_database AS d ON d.datname = current_database()
  CROSS JOIN ledger.login_limits() AS l
  WHERE r.rolname = p_credential AND r.rolcanlogin
    AND NOT pg_has_role(r.oid, current_user, 'MEMBER')
    AND has_rights <> EXISTS (
      SELECT FROM pg_db_role_setting AS s CROSS JOIN unnest(s.setconfig) AS c (setting)
      WHERE CASE WHEN has_rights
        THEN s.setrole IN (0, r.oid) AND s.setdatabase IN (0, d.oid)
          AND split_part(c.setting, '=', 1) = l.name
        ELSE s.setrole = r.oid AND s.setdatabase = d.oid
          AND c.setting = l.name || '=' || l.value END);
  IF changed IS NULL THEN
    RETURN;
  END IF;
  FOR change IN SELECT CASE WHEN has_rights THEN format('SET %I = %L', c.key, c.value)
      ELSE format('RESET %I', c.key) END FROM jsonb_each_text(changed) AS c LOOP
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
