-- Stops a fold at an event whose schema version the fold does not know: its content may mean
-- something else.
CREATE OR REPLACE FUNCTION ledger.refuse_version(p_type text, p_version int) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RAISE EXCEPTION 'event type % schema version % is not known to this projection', p_type, p_version
    USING ERRCODE = 'RF405',
      HINT = 'Name the schema version in the fields of the projection, or read the content in '
        'a function.';
END $$;
