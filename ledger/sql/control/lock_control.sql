-- Locks a list of the control history against other writers until the transaction ends. The lock is
-- on the event of the database's list (*) that begins the list, a row that no login can lock by
-- hand. Waits two seconds, then raises 55P03, which names the sessions that may hold it: those with
-- rights in the project whose transaction has changed something. A function that goes on to write a
-- row which other calls of it write as well calls this first, because its wait for that row would
-- have no limit. Internal to the owner's functions.
CREATE OR REPLACE FUNCTION ledger.lock_control(p_list text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '2s'
AS $$
DECLARE
  begun CONSTANT text := 'list:' || p_list;
  first bigint := CASE WHEN p_list = '*' THEN 1
    ELSE (SELECT event.number FROM ledger.control_event AS event WHERE event.subject = begun) END;
BEGIN
  IF first IS NULL THEN
    PERFORM ledger.lock_control('*');
    SELECT event.number INTO first FROM ledger.control_event AS event WHERE event.subject = begun;
    IF first IS NULL THEN -- nobody has begun it meanwhile
      PERFORM ledger.append_control('*', 'list.begun', begun, NULL, session_user, NULL);
      RETURN;
    END IF;
  END IF;
  BEGIN
    PERFORM FROM ledger.control_event AS event WHERE event.project_id = '*' AND event.number = first
    FOR UPDATE;
  EXCEPTION WHEN lock_not_available THEN
    RAISE EXCEPTION 'the control history of % is held by %', CASE WHEN p_list = '*'
      THEN 'the database' ELSE 'project ' || p_list END,
      ledger.holders('ledger.control_event', p_list)
      USING ERRCODE = '55P03';
  END;
END $$;
