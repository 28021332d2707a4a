-- Makes the monthly partitions of `event` for this month, by the clock of run ids, and the given
-- number of months after it; returns how many were new. There is no DEFAULT partition: it would
-- forbid detaching a month without a scan under a lock. None is made for a month that is archived,
-- as a clock that was set back would have it: the month could not be attached any more. Only the
-- ledger's owner makes more than three months ahead: each partition adds to the cost of every page
-- of the feed and of every key.
-- Locks: SHARE UPDATE EXCLUSIVE on `event` where a month is missing, so that two callers do not
-- collide; no login can take that lock itself, as it could an advisory one.
-- No caller's setting says where the table lies.
CREATE OR REPLACE FUNCTION ledger.make_partitions(p_months_ahead int DEFAULT 3) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET default_tablespace = ''
AS $$
DECLARE
  this_month CONSTANT timestamp := ledger.uuid7_month(ledger.uuid7());
  begins timestamp;
  partition text;
  made int := 0;
BEGIN
  IF p_months_ahead NOT BETWEEN 0 AND 120 THEN
    RAISE EXCEPTION 'months ahead must be 0 to 120, not %', p_months_ahead USING ERRCODE = '22023';
  END IF;
  IF p_months_ahead > 3 AND NOT pg_has_role(session_user, current_user, 'MEMBER') THEN
    RAISE EXCEPTION 'this login makes partitions for at most 3 months ahead, not %', p_months_ahead
      USING ERRCODE = '42501';
  END IF;
  FOR begins IN
    SELECT generate_series(this_month, this_month + make_interval(months => p_months_ahead),
      '1 month')
  LOOP
    partition := 'event_' || to_char(begins, 'YYYY_MM');
    CONTINUE WHEN to_regclass('ledger.' || partition) IS NOT NULL;
    LOCK TABLE ledger.event IN SHARE UPDATE EXCLUSIVE MODE;
    CONTINUE WHEN to_regclass('ledger.' || partition) IS NOT NULL; -- made while this waited
    CONTINUE WHEN EXISTS (SELECT FROM ledger.archive AS archived WHERE archived.detached
      AND archived.first = ledger.uuid7_floor(begins));
    EXECUTE format(
      'CREATE TABLE ledger.%I (LIKE ledger.event INCLUDING DEFAULTS INCLUDING CONSTRAINTS)',
      partition);
    PERFORM ledger.attach_partition(begins);
    made := made + 1;
  END LOOP;
  RETURN made;
END $$;
