-- Gives a login the right to connect to the database, or takes it back, where the ledger's owner
-- may do so, so that a grant needs no second step. For a role that has members, only the server's
-- administrator does it. Internal to ledger.change_access. Locks: where that changes something, the
-- database's row in pg_database, for the whole server. Waits two seconds for another transaction
-- that changes that row. After that a revocation leaves the login able to connect, without any
-- right, and a grant raises 55P03, which names the other session to the owner.
CREATE OR REPLACE FUNCTION ledger.change_connect(p_credential text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '2s'
AS $$
DECLARE
  database CONSTANT text := current_database();
  has_rights CONSTANT boolean := EXISTS (SELECT FROM ledger.access_grant AS granted
    WHERE granted.credential = p_credential AND cardinality(granted.rights) > 0);
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles AS login
      WHERE login.rolname = p_credential AND login.rolcanlogin)
    OR NOT (SELECT pg_has_role(current_user, this_database.datdba, 'USAGE')
      FROM pg_database AS this_database WHERE this_database.datname = database)
    OR has_rights = EXISTS (
      SELECT FROM pg_database AS this_database, aclexplode(this_database.datacl) AS entry
      WHERE this_database.datname = database AND entry.privilege_type = 'CONNECT'
        AND entry.grantee = (SELECT login.oid FROM pg_roles AS login
          WHERE login.rolname = p_credential)) THEN
    RETURN;
  END IF;
  IF has_rights THEN
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', database, p_credential);
  ELSE
    EXECUTE format('REVOKE CONNECT ON DATABASE %I FROM %I', database, p_credential);
  END IF;
EXCEPTION WHEN lock_not_available OR internal_error THEN -- held, or just changed, by another
  IF NOT has_rights THEN
    RAISE WARNING '% has no right any more, but may still connect: another change of who may '
      'connect is at work', p_credential;
    RETURN;
  END IF;
  RAISE EXCEPTION 'the logins that may connect are being changed by %', CASE
      WHEN ledger.is_owner() THEN ledger.holders('ledger.access_grant', NULL)
      ELSE 'another session: try again when its transaction has ended' END
    USING ERRCODE = '55P03';
END $$;
