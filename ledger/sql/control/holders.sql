-- Returns, for an error message, which sessions and prepared transactions may hold a table or a row
-- of it, and how to end them: those whose transaction has changed or locked something there, of
-- logins with rights in the project; of all logins where the project is null. The oldest comes
-- first: those that wait for it are named as well. Internal to the owner's functions.
CREATE OR REPLACE FUNCTION ledger.holders(p_relation regclass, p_project text) RETURNS text
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
  -- The row's xmax may be a subtransaction's, which belongs to nobody in pg_locks. A prepared
  -- transaction has no process there: it is the one that holds its own id.
  SELECT coalesce(string_agg(CASE WHEN prepared.gid IS NOT NULL
    THEN format('prepared transaction %L of login %s: end it with ROLLBACK PREPARED %1$L',
      prepared.gid, login.rolname)
    ELSE format(
      'process %s, login %s%s: end it with SELECT pg_terminate_backend(%1$s)',
      session.pid, login.rolname,
      ', in a transaction since ' || to_char(session.xact_start AT TIME ZONE 'UTC',
        'YYYY-MM-DD HH24:MI:SS "UTC"')) END,
    '; or by ' ORDER BY coalesce(session.xact_start, prepared.prepared)), 'another session')
  FROM pg_locks AS lock
  LEFT JOIN pg_stat_activity AS session ON session.pid = lock.pid
  LEFT JOIN (
    pg_prepared_xacts AS prepared JOIN pg_locks AS own ON own.transactionid = prepared.transaction
  ) ON own.virtualtransaction = lock.virtualtransaction AND lock.pid IS NULL AND own.pid IS NULL
  JOIN pg_roles AS login ON login.rolname IN (session.usename, prepared.owner)
  JOIN pg_database AS here ON here.oid = lock.database
  WHERE lock.relation = p_relation AND lock.granted
    AND lock.mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'AccessExclusiveLock')
    AND here.datname = current_database() AND lock.pid IS DISTINCT FROM pg_backend_pid()
    AND (p_project IS NULL OR pg_has_role(login.oid, current_user, 'MEMBER') OR EXISTS (
      SELECT FROM ledger.access_grant AS granted
      WHERE granted.credential = login.rolname AND granted.project_id IN (p_project, '*')))
$$;
