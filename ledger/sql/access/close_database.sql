-- Takes from PUBLIC the right to connect, so that logins of the server's other databases cannot.
-- Only the database's owner may; doctor names a database that is still open. ledger.change_access
-- gives the right to each login that is granted something.
DO $$
BEGIN
  IF (SELECT pg_has_role(current_user, this_database.datdba, 'USAGE')
    FROM pg_database AS this_database WHERE this_database.datname = current_database()) THEN
    EXECUTE format('REVOKE CONNECT ON DATABASE %I FROM PUBLIC', current_database());
  END IF;
END $$;
