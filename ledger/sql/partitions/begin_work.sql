-- Begins work that other sessions may not do at the same time, unless both share it: commands of
-- the archive, rebuilds. Returns the key of an advisory lock, which the session holds while it
-- lives; it counts as at work for as long. The key is new each time, so no other login can take the
-- lock beforehand or keep it. Raises 55P03, which names the session that is at work. Needs the
-- right read in all projects; the archive without sharing needs the owner's login. Locks:
-- `alembic_version` against other writers; call it in a transaction of its own.
CREATE OR REPLACE FUNCTION ledger.begin_work(p_name text, p_shared boolean) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '5s'
AS $$
DECLARE
  checked boolean;
  new_key CONSTANT bigint :=
    ('x' || left(replace(gen_random_uuid()::text, '-', ''), 16))::bit(64)::bigint;
  holder text;
BEGIN
  checked := ledger.check_access('*', '{read}');
  checked := ledger.check_given('p_name', p_name IS NOT NULL);
  checked := ledger.check_given('p_shared', p_shared IS NOT NULL);
  checked := ledger.check_texts(ARRAY[p_name], 200, true);
  IF p_name = 'archive' AND NOT p_shared
    AND NOT pg_has_role(session_user, current_user, 'MEMBER') THEN
    RAISE EXCEPTION 'only the owner of the ledger changes its archive' USING ERRCODE = '42501';
  END IF;
  -- Only upgrades write this table, so no login can hold it; the lock of at_work is for upgrades.
  BEGIN
    LOCK TABLE ledger.alembic_version IN SHARE ROW EXCLUSIVE MODE;
  EXCEPTION WHEN lock_not_available THEN
    RAISE EXCEPTION 'a transaction that began or upgraded something is left open by %',
      ledger.holders('ledger.alembic_version', NULL) USING ERRCODE = '55P03';
  END;
  DELETE FROM ledger.at_work AS work WHERE NOT EXISTS (
    SELECT FROM pg_locks AS lock
    WHERE lock.locktype = 'advisory' AND lock.objsubid = 1 AND lock.granted AND lock.pid = work.pid
      AND lock.database = (SELECT this_database.oid FROM pg_database AS this_database
        WHERE this_database.datname = current_database())
      AND (lock.classid::bigint << 32 | lock.objid::bigint) = work.key);
  SELECT format('process %s, login %s', work.pid, session.usename) INTO holder
  FROM ledger.at_work AS work LEFT JOIN pg_stat_activity AS session ON session.pid = work.pid
  WHERE work.name = p_name AND NOT (work.shared AND p_shared) LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION '% is at work on %', holder, p_name USING ERRCODE = '55P03';
  END IF;
  PERFORM pg_advisory_lock(new_key);
  INSERT INTO ledger.at_work (name, shared, pid, key)
  VALUES (p_name, p_shared, pg_backend_pid(), new_key);
  RETURN new_key;
END $$;
