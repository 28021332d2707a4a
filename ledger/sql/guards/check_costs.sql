-- Refuses a cost that Python refuses (check_cost): NaN, infinite, or beyond the limit. Returns
-- true, so that a caller can assign it. Internal to the operations.
CREATE OR REPLACE FUNCTION ledger.check_costs(p_costs numeric[]) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
  odd numeric;
BEGIN
  -- NaN is greater than all numbers. This test comes first because a query costs more.
  IF 1000000000 < ANY (p_costs) OR -1000000000 > ANY (p_costs) THEN
    SELECT given.cost INTO odd FROM unnest(p_costs) AS given (cost)
    WHERE given.cost > 1000000000 OR given.cost < -1000000000 LIMIT 1;
    RAISE EXCEPTION 'a cost is a finite number of US dollars, at most 1000000000, not %',
      left(odd::text, 40) USING ERRCODE = '22023';
  END IF;
  RETURN true;
END $$;
