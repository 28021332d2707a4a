-- Refuses to read the feed on from a moment that has not passed the events of an archived month:
-- they are not in the database, and a reader that went on would never learn of them.
CREATE OR REPLACE FUNCTION ledger.check_months_read(p_generation int, p_moment text) RETURNS void
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  missed text;
BEGIN
  -- its snapshot would still show a month that was archived since
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'the feed is read in transactions at READ COMMITTED'
      USING ERRCODE = 'invalid_transaction_state';
  END IF;
  SELECT string_agg(archived.month, ', ' ORDER BY archived.month) INTO missed
  FROM ledger.archive AS archived
  WHERE archived.detached AND NOT ledger.feed_passed(p_generation, p_moment,
    archived.generation, archived.last_position, archived.last_txid);
  IF missed IS NOT NULL THEN
    RAISE EXCEPTION 'the events of % are archived, and were not read before', missed
      USING ERRCODE = 'RF412', DETAIL = missed;
  END IF;
END $$;
