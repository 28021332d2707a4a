-- Keeps the ledger's time from falling behind the events on record, and returns it. Reapers call it
-- at every sweep, and at every pulse between sweeps.
--
-- It remembers the newest event time that it has seen in a sequence, newest_time (microseconds): a
-- sequence needs no row lock, and nothing is written while nothing is recorded. When ledger.now()
-- is more than a second behind that, the clock was set back: from then on now() goes on from the
-- newest time, a tenth slower than the clock, until the clock is past everything on record. Both
-- changes are recorded in the control history. Where the server takes no writes, only the time is
-- returned. Locks: on a change, the database's list of the control history; if somebody holds it,
-- the next call tries again.
CREATE OR REPLACE FUNCTION ledger.keep_time() RETURNS timestamptz
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET TimeZone = 'UTC'
SET DateStyle = 'ISO'
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_sort = off
SET jit = off
AS $$
DECLARE
  tolerance CONSTANT interval := '1 s';
  plain CONSTANT text := ' SELECT ledger.clock() ';
  held timestamptz := ledger.now();
  clock timestamptz := ledger.clock();
  body text;
  known bigint;
  newest timestamptz;
BEGIN
  IF current_setting('transaction_read_only') = 'on' THEN
    RETURN held;
  END IF;
  SELECT kept.last_value INTO known FROM ledger.newest_time AS kept;
  SELECT greatest(max(recent.recorded_at), to_timestamp(0) + known * interval '1 us') INTO newest
  FROM (SELECT event.recorded_at FROM ledger.newest_events(100) AS event) AS recent;
  IF newest > to_timestamp(0) + known * interval '1 us' + tolerance THEN
    PERFORM setval('ledger.newest_time', (extract(epoch FROM newest) * 1000000)::bigint);
  END IF;
  SELECT prosrc INTO body FROM pg_proc WHERE oid = 'ledger.now()'::regprocedure;
  IF newest <= held + tolerance AND (body = plain OR clock < newest) THEN
    RETURN held;
  END IF;
  BEGIN
    PERFORM FROM ledger.control_event AS first
    WHERE first.project_id = '*' AND first.number = 1 FOR UPDATE NOWAIT;
  EXCEPTION WHEN lock_not_available THEN
    RETURN held;
  END;
  held := ledger.now(); -- another call may have set it right meanwhile
  clock := ledger.clock();
  IF newest > held + tolerance THEN
    EXECUTE format('CREATE OR REPLACE FUNCTION ledger.now() RETURNS timestamptz
      LANGUAGE sql VOLATILE PARALLEL SAFE AS %L',
      format(' SELECT greatest(ledger.clock(), %L::timestamptz'
        || ' + 0.9 * (ledger.clock() - %L::timestamptz)) ', newest, clock));
    PERFORM ledger.append_control('*', 'clock.set_back', 'clock:ledger',
      json_build_object('clock', clock, 'goes_on_from', newest)::text, session_user, NULL);
  ELSIF clock >= newest THEN
    EXECUTE format('CREATE OR REPLACE FUNCTION ledger.now() RETURNS timestamptz
      LANGUAGE sql VOLATILE PARALLEL SAFE AS %L', plain);
    PERFORM ledger.append_control('*', 'clock.caught_up', 'clock:ledger',
      json_build_object('clock', clock)::text, session_user, NULL);
  END IF;
  RETURN ledger.now();
END $$;
