-- Events and payloads are never changed or deleted, by anyone: the second line of defence, after
-- privileges. The payloads of a month whose events were detached may go with them: the archive
-- has both (see ledger/archive/detach.py). Records of reads may go when they are 184 days old.
CREATE OR REPLACE FUNCTION ledger.refuse_change() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF TG_OP = 'DELETE' AND TG_TABLE_NAME = 'payload' THEN
    IF EXISTS (SELECT FROM ledger.archive AS archive WHERE archive.detached
      AND OLD.run_id >= archive.first AND OLD.run_id < archive.beyond) THEN
      RETURN OLD;
    END IF;
  END IF;
  IF TG_OP = 'DELETE' AND TG_TABLE_NAME = 'payload_read' THEN
    IF OLD.read_at < clock_timestamp() - interval '184 days' THEN
      RETURN OLD;
    END IF;
  END IF;
  RAISE EXCEPTION '% on % is not allowed: the ledger is append-only', TG_OP, TG_TABLE_NAME
    USING ERRCODE = 'RF403', HINT = 'Append a compensating event instead.';
END $$;
