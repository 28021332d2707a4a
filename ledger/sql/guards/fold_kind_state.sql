-- Folds new events of kinds into kind_state, in the statement that appends them; each follows
-- the one before it.
CREATE OR REPLACE FUNCTION ledger.fold_kind_state() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  e ledger.kind_event;
  folded int;
BEGIN
  FOR e IN SELECT n.* FROM new_events AS n ORDER BY n.project_id, n.kind, n.number LOOP
    INSERT INTO ledger.kind_state AS s (project_id, kind, number, paused, max_running, updated_at)
    VALUES (e.project_id, e.kind, e.number, e.type = 'kind.paused', e.max_running, e.recorded_at)
    ON CONFLICT (project_id, kind) DO UPDATE SET
      number = e.number,
      paused = CASE e.type WHEN 'kind.paused' THEN true WHEN 'kind.resumed' THEN false
        ELSE s.paused END,
      max_running = CASE e.type WHEN 'kind.limited' THEN e.max_running ELSE s.max_running END,
      updated_at = e.recorded_at
    WHERE s.number = e.number - 1
    RETURNING s.number INTO folded;
    IF folded IS NULL OR (folded > 1) <> EXISTS (
      SELECT FROM ledger.kind_event AS b WHERE b.project_id = e.project_id AND b.kind = e.kind
        AND b.number = e.number - 1
    ) THEN
      RAISE EXCEPTION 'event % of kind % does not follow the one before it', e.number, e.kind
        USING ERRCODE = '23514';
    END IF;
  END LOOP;
  RETURN NULL;
END $$;
