-- Ends what ledger.begin_work began in this session.
CREATE OR REPLACE FUNCTION ledger.end_work(p_key bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  DELETE FROM ledger.at_work AS work WHERE work.key = p_key AND work.pid = pg_backend_pid();
  IF FOUND THEN
    PERFORM pg_advisory_unlock(p_key);
  END IF;
END $$;
