-- Takes from PUBLIC the right to connect, so that logins of the server's other databases cannot,
-- and gives it to each login that is granted something: a dump keeps the grants, and leaves out who
-- may connect. Only the database's owner may; doctor names a database that is still open.
DO $$
BEGIN
  IF (SELECT pg_has_role(current_user, this_database.datdba, 'USAGE')
    FROM pg_database AS this_database WHERE this_database.datname = current_database()) THEN
    IF has_database_privilege('public', current_database(), 'CONNECT') THEN
      EXECUTE format('REVOKE CONNECT ON DATABASE %I FROM PUBLIC', current_database());
    END IF;
    PERFORM ledger.change_connect(grantee.credential) FROM (
      SELECT DISTINCT granted.credential FROM ledger.access_grant AS granted
      WHERE cardinality(granted.rights) > 0) AS grantee;
  END IF;
END $$;
