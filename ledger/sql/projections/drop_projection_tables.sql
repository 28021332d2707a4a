-- Drops the tables that finished rebuilds of a projection left behind and returns their names; with
-- p_all the projection itself as well: its view, its tables, its checkpoint, what it skipped and
-- what it set aside. No event is touched. Needs the right read or admin in all projects.
CREATE OR REPLACE FUNCTION ledger.drop_projection_tables(
  p_name text, p_all boolean DEFAULT false
) RETURNS SETOF text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  dropped text;
BEGIN
  PERFORM ledger.check_access('*', '{read,admin}');
  PERFORM ledger.check_projection_name('projection', p_name);
  IF p_all THEN
    PERFORM FROM ledger.projection AS p WHERE p.name = p_name FOR UPDATE;
    EXECUTE format('DROP VIEW IF EXISTS projection.%I', p_name);
  END IF;
  FOR dropped IN
    SELECT c.relname FROM pg_class AS c
    LEFT JOIN ledger.rebuild AS r ON r.projection = p_name AND c.relname IN (
      format('rebuild_%s_of_%s', r.rebuild_id, p_name),
      format('replaced_%s_of_%s', r.rebuild_id, p_name))
    WHERE c.relnamespace = 'projection'::regnamespace AND c.relkind = 'r'
      AND (r.finished_at IS NOT NULL OR p_all
        AND (r.rebuild_id IS NOT NULL OR c.relname ~ ('^' || p_name || '_v[0-9]{1,5}$')))
    ORDER BY r.rebuild_id NULLS FIRST, c.relname
  LOOP
    EXECUTE format('DROP TABLE projection.%I', dropped);
    DELETE FROM ledger.projection_aside AS a WHERE a.relation = 'projection.' || dropped;
    RETURN NEXT 'projection.' || dropped;
  END LOOP;
  IF p_all THEN
    DELETE FROM ledger.projection_aside AS a WHERE a.name = p_name;
    DELETE FROM ledger.projection_skip AS k WHERE k.name = p_name;
    DELETE FROM ledger.rebuild_range AS g USING ledger.rebuild AS r
    WHERE g.rebuild_id = r.rebuild_id AND r.projection = p_name AND r.project_id IS NULL;
    DELETE FROM ledger.rebuild AS r WHERE r.projection = p_name AND r.project_id IS NULL;
    DELETE FROM ledger.projection AS p WHERE p.name = p_name;
  END IF;
END $$;
