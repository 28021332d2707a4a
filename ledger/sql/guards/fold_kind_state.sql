-- Folds new events of kinds into kind_state, in the statement that appends them; each follows
-- the one before it.
CREATE OR REPLACE FUNCTION ledger.fold_kind_state() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  change ledger.kind_event;
  folded int;
BEGIN
  FOR change IN
    SELECT fresh.* FROM new_events AS fresh ORDER BY fresh.project_id, fresh.kind, fresh.number
  LOOP
    INSERT INTO ledger.kind_state AS state
      (project_id, kind, number, paused, max_running, updated_at)
    VALUES (change.project_id, change.kind, change.number, change.type = 'kind.paused',
      change.max_running, change.recorded_at)
    ON CONFLICT (project_id, kind) DO UPDATE SET
      number = change.number,
      paused = CASE change.type WHEN 'kind.paused' THEN true WHEN 'kind.resumed' THEN false
        ELSE state.paused END,
      max_running = CASE change.type WHEN 'kind.limited' THEN change.max_running
        ELSE state.max_running END,
      updated_at = change.recorded_at
    WHERE state.number = change.number - 1
    RETURNING state.number INTO folded;
    IF folded IS NULL OR (folded > 1) <> EXISTS (
      SELECT FROM ledger.kind_event AS before WHERE before.project_id = change.project_id
        AND before.kind = change.kind AND before.number = change.number - 1
    ) THEN
      RAISE EXCEPTION 'event % of kind % does not follow the one before it: its events or its '
        'settings were damaged, and `runfold verify` names the damage',
        change.number, change.kind USING ERRCODE = 'RF001';
    END IF;
  END LOOP;
  RETURN NULL;
END $$;
