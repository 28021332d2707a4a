-- Names the sessions that may hold a row of a table, and how to end them, for an error: those with
-- rights in the project whose transaction has changed something in the table. Internal to the
-- owner's functions.
CREATE OR REPLACE FUNCTION ledger.holders(p_relation regclass, p_project text) RETURNS text
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
  -- The row's xmax may be a subtransaction's, which belongs to nobody in pg_locks.
  SELECT coalesce(string_agg(format(
    'process %s, login %s%s: end it with SELECT pg_terminate_backend(%1$s)',
    session.pid, session.usename,
    ', in a transaction since ' || to_char(session.xact_start AT TIME ZONE 'UTC',
      'YYYY-MM-DD HH24:MI:SS "UTC"')), '; or by '), 'another session')
  FROM pg_locks AS lock JOIN pg_stat_activity AS session ON session.pid = lock.pid
  WHERE lock.relation = p_relation AND lock.mode = 'RowExclusiveLock' AND lock.granted
    AND lock.database = session.datid AND session.pid <> pg_backend_pid()
    AND (pg_has_role(session.usesysid, current_user, 'MEMBER') OR EXISTS (
      SELECT FROM ledger.access_grant AS granted
      WHERE granted.credential = session.usename AND granted.project_id IN (p_project, '*')))
$$;
