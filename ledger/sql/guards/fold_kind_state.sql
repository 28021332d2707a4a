-- Folds new events of kinds into kind_state, in the statement that appends them; each follows
-- the one before it.
CREATE OR REPLACE FUNCTION ledger.fold_kind_state() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE folded int;
BEGIN
  INSERT INTO ledger.kind_state AS s (project_id, kind, number, paused, max_running, updated_at)
  VALUES (NEW.project_id, NEW.kind, NEW.number, NEW.type = 'kind.paused', NEW.max_running,
  NEW.recorded_at)
  ON CONFLICT (project_id, kind) DO UPDATE SET
    number = NEW.number,
    paused = CASE NEW.type WHEN 'kind.paused' THEN true WHEN 'kind.resumed' THEN false
      ELSE s.paused END,
    max_running = CASE NEW.type WHEN 'kind.limited' THEN NEW.max_running ELSE s.max_running END,
    updated_at = NEW.recorded_at
  WHERE s.number = NEW.number - 1
  RETURNING s.number INTO folded;
  IF folded IS NULL OR (folded > 1) <> EXISTS (
    SELECT FROM ledger.kind_event AS e WHERE e.project_id = NEW.project_id AND e.kind = NEW.kind
      AND e.number = NEW.number - 1
  ) THEN
    RAISE EXCEPTION 'event % of kind % does not follow the one before it', NEW.number, NEW.kind
      USING ERRCODE = '23514';
  END IF;
  RETURN NULL;
END $$;
