-- Takes one of the other 31 turns, or waits for p_turn, a second at most; a turn is held until the
-- transaction ends. After that time the claim goes on without one, because a transaction may stay
-- open after its claim, and any login can take an advisory lock. Only a claim calls it whose own
-- turn, p_turn, is taken. Internal to ledger.claim. Locks: an advisory one.
CREATE OR REPLACE FUNCTION ledger.await_turn(p_turn bigint) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '1s'
AS $$
BEGIN
  FOR other IN 1..31 LOOP -- the last five bits of the key are the number of the turn
    IF pg_try_advisory_xact_lock(p_turn # other) THEN
      RETURN;
    END IF;
  END LOOP;
  PERFORM pg_advisory_xact_lock(p_turn);
EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
  NULL;
END $$;
