-- Refuses negative costs and steps without the token of a lease: only its holder may correct what
-- it reported. Returns true, so that a caller can assign it. Internal to the operations.
CREATE OR REPLACE FUNCTION ledger.check_corrections(
  p_tokens int[], p_costs numeric[], p_steps int[]
) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
BEGIN
  IF 0 > ANY (p_costs) OR 0 > ANY (p_steps) THEN -- this test comes first because a query costs more
    IF EXISTS (SELECT FROM unnest(p_tokens, p_costs, p_steps) AS given (token, cost, steps)
      WHERE given.token IS NULL AND (given.cost < 0 OR given.steps < 0)) THEN
      RAISE EXCEPTION 'a cost or steps may be below zero only from the holder of the lease'
        USING ERRCODE = '22023';
    END IF;
  END IF;
  RETURN true;
END $$;
