-- Returns one member of a payload as JSON text; where the content cannot be read, a text that is
-- not JSON and says why, so that no run stops the reading of others. Slower than the operator
-- `->`, which the views use wherever it cannot fail.
CREATE OR REPLACE FUNCTION ledger.content_part(p_body json, p_name text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN (p_body -> p_name)::text;
EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
  RETURN 'cannot be read: ' || SQLERRM;
END $$;
