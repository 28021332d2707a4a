-- Keeps ANALYZE from sampling the texts (keys, names, actors, reasons) of tables that policies
-- divide: from the estimates of EXPLAIN a login could read samples of other projects. Columns that
-- lists of runs are planned by are sampled. Locks: SHARE UPDATE EXCLUSIVE on a table with a column
-- to change.
DO $$
DECLARE
  sampled record;
BEGIN
  FOR sampled IN
    SELECT attribute.attrelid::regclass AS relation, attribute.attname AS name
    FROM pg_attribute AS attribute JOIN pg_class AS divided ON divided.oid = attribute.attrelid
    WHERE divided.relnamespace = 'ledger'::regnamespace AND divided.relkind IN ('r', 'p')
      AND divided.relrowsecurity AND attribute.attnum > 0 AND NOT attribute.attisdropped
      AND attribute.attstattarget IS DISTINCT FROM 0
      AND attribute.atttypid IN ('text'::regtype, 'varchar'::regtype, 'text[]'::regtype,
        'varchar[]'::regtype)
      AND attribute.attname NOT IN ('project_id', 'kind', 'state', 'type', 'tag', 'tags',
        'worker_id')
  LOOP
    EXECUTE format('ALTER TABLE %s ALTER COLUMN %I SET STATISTICS 0', sampled.relation,
      sampled.name);
  END LOOP;
END $$;
