-- Returns whether the months of two new run ids have their partitions. If not, makes those of this
-- month and the next ones, with the rights of the ledger's owner; the caller then needs new ids. A
-- check beforehand also serves callers whose transaction would not survive a refused insert.
CREATE OR REPLACE FUNCTION ledger.ensure_months(p_first uuid, p_last uuid) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF to_regclass('ledger.event_' || to_char(ledger.uuid7_month(p_first), 'YYYY_MM')) IS NOT NULL
    AND to_regclass('ledger.event_' || to_char(ledger.uuid7_month(p_last), 'YYYY_MM')) IS NOT NULL
  THEN
    RETURN true;
  END IF;
  BEGIN
    PERFORM ledger.make_partitions();
  EXCEPTION WHEN insufficient_privilege THEN
    RAISE EXCEPTION 'no partition takes the events of this month, and none can be made: %', SQLERRM
      USING ERRCODE = '23514', DETAIL = p_last,
        HINT = 'run `runfold db upgrade` as the owner, and keep a reaper running';
  END;
  RETURN false;
END $$;
