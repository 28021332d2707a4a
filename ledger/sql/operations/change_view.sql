-- Saves a view, a query of runs under a name, for all who read the project; without a query,
-- removes it. Returns whether anything changed. At most 50 in a project. It is recorded in
-- ledger.view_event, not in the control history, so that a login that may only read cannot hold
-- that history's list. Needs the right read. Locks: the view; waits two seconds for another call
-- that changes it.
CREATE OR REPLACE FUNCTION ledger.change_view(
  p_project text, p_actor text, p_name text, p_query text
) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '2s'
AS $$
DECLARE
  checked boolean;
  changed boolean;
BEGIN
  checked := ledger.check_access(p_project, '{read}', ARRAY[p_actor]);
  checked := ledger.check_project(p_project);
  checked := ledger.check_given('p_actor', p_actor IS NOT NULL);
  checked := ledger.check_given('p_name', p_name IS NOT NULL);
  checked := ledger.check_texts(ARRAY[p_actor, p_name], 200, true);
  checked := ledger.check_texts(ARRAY[p_query], 1000, true);
  IF p_query IS NULL THEN
    DELETE FROM ledger.saved_view AS view WHERE view.project_id = p_project AND view.name = p_name;
    changed := FOUND;
  ELSE
    IF (SELECT count(*) FROM ledger.saved_view AS view
        WHERE view.project_id = p_project AND view.name <> p_name) >= 50 THEN
      RAISE EXCEPTION 'the project has 50 views: remove one' USING ERRCODE = '22023';
    END IF;
    INSERT INTO ledger.saved_view AS view (project_id, name, query, actor)
    VALUES (p_project, p_name, p_query, p_actor)
    ON CONFLICT (project_id, name) DO UPDATE SET query = excluded.query, actor = excluded.actor
    WHERE view.query <> excluded.query;
    changed := FOUND;
  END IF;
  INSERT INTO ledger.view_event (project_id, name, number, recorded_at, query, actor, credential)
  SELECT p_project, p_name, (SELECT coalesce(max(recorded.number), 0) + 1
      FROM ledger.view_event AS recorded
      WHERE recorded.project_id = p_project AND recorded.name = p_name),
    ledger.now(), p_query, p_actor, ledger.credential()
  WHERE changed
  ON CONFLICT DO NOTHING; -- with a snapshot from before the newest, a serialization failure
  RETURN changed;
END $$;
