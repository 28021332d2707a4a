-- Makes the table of a month, which is named after it, a partition of `event`: bounded by the
-- millisecond that leads a UUIDv7, and with triggers of its own that guard it where it is
-- addressed directly. Locks: SHARE UPDATE EXCLUSIVE on `event`.
CREATE OR REPLACE FUNCTION ledger.attach_partition(p_month timestamp) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  partition text := 'event_' || to_char(p_month, 'YYYY_MM');
  unsampled name;
BEGIN
  EXECUTE format('ALTER TABLE ledger.event ATTACH PARTITION ledger.%I FOR VALUES FROM (%L) TO (%L)',
    partition, ledger.uuid7_floor(p_month), ledger.uuid7_floor(p_month + '1 month'));
  EXECUTE format('CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON ledger.%I '
    'EXECUTE FUNCTION ledger.refuse_change()', partition);
  EXECUTE format('CREATE TRIGGER refuse_insert BEFORE INSERT ON ledger.%I '
    'EXECUTE FUNCTION ledger.refuse_change()', partition);
  EXECUTE format('ALTER TABLE ledger.%I ENABLE ALWAYS TRIGGER refuse_truncate', partition);
  EXECUTE format('ALTER TABLE ledger.%I ENABLE ALWAYS TRIGGER refuse_insert', partition);
  EXECUTE format('ALTER TABLE ledger.%I ENABLE ROW LEVEL SECURITY', partition);
  EXECUTE format('REVOKE ALL ON ledger.%I FROM PUBLIC', partition);
  FOR unsampled IN -- see access/statistics
    SELECT attribute.attname FROM pg_attribute AS attribute
    WHERE attribute.attrelid = 'ledger.event'::regclass AND attribute.attnum > 0
      AND attribute.attstattarget = 0
  LOOP
    EXECUTE format('ALTER TABLE ledger.%I ALTER COLUMN %I SET STATISTICS 0', partition, unsampled);
  END LOOP;
  EXECUTE format('ANALYZE ledger.%I', partition);
END $$;
