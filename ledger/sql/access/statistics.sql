-- Keeps ANALYZE from sampling the words of tables that policies divide, as keys, names, actors and
-- reasons: a login reads the samples of all projects out of the estimates of EXPLAIN. What lists of
-- runs are planned by is sampled. Locks: SHARE UPDATE EXCLUSIVE on a table with a column to change.
DO $$
DECLARE
  sampled record;
BEGIN
  FOR sampled IN
    SELECT a.attrelid::regclass AS relation, a.attname AS name
    FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
    WHERE c.relnamespace = 'ledger'::regnamespace AND c.relkind IN ('r', 'p')
      AND c.relrowsecurity AND a.attnum > 0 AND NOT a.attisdropped
      AND a.attstattarget IS DISTINCT FROM 0
      AND a.atttypid IN ('text'::regtype, 'varchar'::regtype, 'text[]'::regtype,
        'varchar[]'::regtype)
      AND a.attname NOT IN ('project_id', 'kind', 'state', 'type', 'tag', 'tags', 'worker_id')
  LOOP
    EXECUTE format('ALTER TABLE %s ALTER COLUMN %I SET STATISTICS 0', sampled.relation,
      sampled.name);
  END LOOP;
END $$;
