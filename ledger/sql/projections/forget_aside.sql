-- Forgets that a run is set aside for a table, because it is about to be folded; without a run, all
-- that a rebuild set aside for the table, which it tries again. A projector has no privilege to
-- delete these rows, because that would include one to lock the whole table. Needs the right read
-- or admin in all projects.
CREATE OR REPLACE FUNCTION ledger.forget_aside(
  p_relation text, p_project_id text, p_run_id uuid
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM ledger.check_access('*', '{read,admin}');
  PERFORM ledger.check_given('p_relation', p_relation IS NOT NULL);
  PERFORM ledger.check_given('p_project_id', p_run_id IS NULL OR p_project_id IS NOT NULL);
  IF p_run_id IS NULL THEN
    DELETE FROM ledger.projection_aside AS aside
    WHERE aside.relation = p_relation AND aside.first_position = 0;
  ELSE -- by its key: a retry of many calls this for each
    DELETE FROM ledger.projection_aside AS aside WHERE aside.relation = p_relation
      AND aside.project_id = p_project_id AND aside.run_id = p_run_id;
  END IF;
END $$;
