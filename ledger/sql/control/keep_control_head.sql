-- Lets the head of a list of the control history move on by one event, which must exist, and in no
-- other way. It guards against mistakes of the owner; verify compares the head with the list.
CREATE OR REPLACE FUNCTION ledger.keep_control_head() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF TG_OP IN ('INSERT', 'UPDATE') THEN
    IF NEW.number = coalesce(OLD.number, 0) + 1
      AND NEW.project_id = coalesce(OLD.project_id, NEW.project_id)
      AND EXISTS (SELECT FROM ledger.control_event AS event WHERE event.project_id = NEW.project_id
        AND event.number = NEW.number AND event.hash = NEW.hash) THEN
      RETURN NEW;
    END IF;
  END IF;
  RAISE EXCEPTION '% on % is not allowed: the ledger is append-only', TG_OP, TG_TABLE_NAME
    USING ERRCODE = 'RF403', HINT = 'A head follows its list by itself.';
END $$;
