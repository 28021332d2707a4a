-- Refuses a call of more than 10,000 commands, as Python does: one call must not lock what others
-- need for long. Returns true, so that a caller can assign it.
CREATE OR REPLACE FUNCTION ledger.check_count(p_count int) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE
AS $$
BEGIN
  IF p_count > 10000 THEN
    RAISE EXCEPTION '% commands in one call: 10000 at most', p_count USING ERRCODE = '22023';
  END IF;
  RETURN true;
END $$;
