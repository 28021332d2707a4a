-- Refuses times that not every reader can read: before 1970, after the year 9000, and infinite.
-- Returns true, so that a caller can assign it. Internal to the operations.
CREATE OR REPLACE FUNCTION ledger.check_times(p_times timestamptz[]) RETURNS boolean
LANGUAGE plpgsql STABLE
AS $$
DECLARE
  odd timestamptz;
BEGIN
  FOREACH odd IN ARRAY p_times LOOP
    IF odd < '1970-01-01Z' OR odd >= '9001-01-01Z' THEN
      RAISE EXCEPTION 'a time is between the years 1970 and 9000, not %', odd
        USING ERRCODE = '22023';
    END IF;
  END LOOP;
  RETURN true;
END $$;
