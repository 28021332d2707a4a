-- Returns how the key of a user's password is made; no row for an unknown name. For programs that
-- sign users in; a salt is not secret.
CREATE OR REPLACE FUNCTION ledger.password_method(p_name text)
  RETURNS TABLE (method text, salt bytea)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT password.method::text, password.salt
  FROM ledger.user_password AS password WHERE password.name = p_name
$$;
