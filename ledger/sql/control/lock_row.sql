-- Locks a schedule or webhook that is about to be changed, until the transaction ends. A process
-- that moves it on may have left it locked, so this waits for two seconds and then raises 55P03,
-- which names the sessions that may hold the row. Internal to the owner's functions.
CREATE OR REPLACE FUNCTION ledger.lock_row(
  p_relation regclass, p_column text, p_project text, p_key text
) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '2s'
AS $$
BEGIN
  EXECUTE format('SELECT FROM %s AS locked '
    'WHERE locked.project_id = $1 AND locked.%I = $2 FOR UPDATE', p_relation, p_column)
    USING p_project, p_key;
EXCEPTION WHEN lock_not_available THEN
  RAISE EXCEPTION '% of project % is held by %', p_key, p_project,
    ledger.holders(p_relation, p_project) USING ERRCODE = '55P03';
END $$;
