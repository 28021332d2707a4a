-- Refuses tokens without the workers that hold the leases, as Python does: after a fail-over that
-- lost events, the same token of the same run may be another worker's. Returns true, so that a
-- caller can assign it.
CREATE OR REPLACE FUNCTION ledger.check_workers(p_tokens int[], p_workers text[]) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE
AS $$
BEGIN
  IF num_nonnulls(VARIADIC p_tokens) > coalesce(num_nonnulls(VARIADIC p_workers), 0) THEN
    RAISE EXCEPTION 'a lease is named by its run, its token and its worker: p_workers lacks one'
      USING ERRCODE = '22023';
  END IF;
  RETURN true;
END $$;
