-- Lets a login connect to the database, or no more, where the ledger's owner may say so: a grant
-- needs no second step. A role that others belong to is let in by the server's administrator only.
-- Internal to ledger.change_access.
CREATE OR REPLACE FUNCTION ledger.let_in(p_credential text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  database CONSTANT text := current_database();
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles AS r WHERE r.rolname = p_credential AND r.rolcanlogin)
    OR NOT (SELECT pg_has_role(current_user, d.datdba, 'USAGE') FROM pg_database AS d
      WHERE d.datname = database) THEN
    RETURN;
  END IF;
  IF EXISTS (SELECT FROM ledger.access_grant AS g
    WHERE g.credential = p_credential AND cardinality(g.rights) > 0) THEN
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', database, p_credential);
  ELSE
    EXECUTE format('REVOKE CONNECT ON DATABASE %I FROM %I', database, p_credential);
  END IF;
END $$;
