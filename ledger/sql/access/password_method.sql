-- Returns how the key of a user's password is made; no row for an unknown name. For programs that
-- sign users in; a salt is no secret.
CREATE OR REPLACE FUNCTION ledger.password_method(p_name text)
  RETURNS TABLE (method text, salt bytea)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT w.method::text, w.salt FROM ledger.user_password AS w WHERE w.name = p_name
$$;
