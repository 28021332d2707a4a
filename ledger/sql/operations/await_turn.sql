-- Waits until one of the 32 turns of p_queue is free, a second at most, and takes it until the
-- transaction ends. After that time the claim goes on without a turn, because a transaction may
-- stay open after its claim, and any login can take an advisory lock. Only a claim whose own turn
-- is taken calls it. Internal to ledger.claim. Locks: an advisory one.
CREATE OR REPLACE FUNCTION ledger.await_turn(p_queue bigint) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '1s'
AS $$
BEGIN
  FOR turn IN 0..31 LOOP
    IF pg_try_advisory_xact_lock(p_queue # turn) THEN
      RETURN;
    END IF;
  END LOOP;
  PERFORM pg_advisory_xact_lock(p_queue # (pg_backend_pid() % 32));
EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
  NULL;
END $$;
