-- Refuses a text that is not the name of a projection, a column or a table, and returns the others,
-- so that the functions beside this one may write the name into a statement.
CREATE OR REPLACE FUNCTION ledger.check_projection_name(
  p_what text, p_name text, p_pattern text DEFAULT '[a-z][a-z0-9_]{0,40}'
) RETURNS text
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF p_name IS NULL OR p_name !~ ('^(' || p_pattern || ')$') THEN
    RAISE EXCEPTION '% % is not valid', p_what, coalesce(quote_literal(p_name), 'NULL')
      USING ERRCODE = '22023',
        HINT = 'Use 1 to 41 lower-case letters, digits and _, starting with a letter.';
  END IF;
  RETURN p_name;
END $$;
