-- Refuses a call unless p_is_given: the caller tests that an argument is not null and has a value
-- for every command. Returns true, so that a caller can assign it: an assignment of a plain
-- expression costs no query. Internal to the operations.
CREATE OR REPLACE FUNCTION ledger.check_given(p_name text, p_is_given boolean) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE
AS $$
BEGIN
  IF p_is_given IS NOT TRUE THEN
    RAISE EXCEPTION '% must be given, and must hold a value for every command', p_name
      USING ERRCODE = '22023';
  END IF;
  RETURN true;
END $$;
