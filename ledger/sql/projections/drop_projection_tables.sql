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
    PERFORM FROM ledger.projection WHERE projection.name = p_name FOR UPDATE;
    EXECUTE format('DROP VIEW IF EXISTS projection.%I', p_name);
  END IF;
  FOR dropped IN
    SELECT relation.relname FROM pg_class AS relation
    LEFT JOIN ledger.rebuild ON rebuild.projection = p_name AND relation.relname IN (
      format('rebuild_%s_of_%s', rebuild.rebuild_id, p_name),
      format('replaced_%s_of_%s', rebuild.rebuild_id, p_name))
    WHERE relation.relnamespace = 'projection'::regnamespace AND relation.relkind = 'r'
      AND (rebuild.finished_at IS NOT NULL OR p_all
        AND (rebuild.rebuild_id IS NOT NULL
          OR relation.relname ~ ('^' || p_name || '_v[0-9]{1,5}$')))
    ORDER BY rebuild.rebuild_id NULLS FIRST, relation.relname
  LOOP
    EXECUTE format('DROP TABLE projection.%I', dropped);
    DELETE FROM ledger.projection_aside AS aside WHERE aside.relation = 'projection.' || dropped;
    RETURN NEXT 'projection.' || dropped;
  END LOOP;
  IF p_all THEN
    DELETE FROM ledger.projection_aside AS aside WHERE aside.name = p_name;
    DELETE FROM ledger.projection_skip AS skipped WHERE skipped.name = p_name;
    DELETE FROM ledger.rebuild_range AS part USING ledger.rebuild
    WHERE part.rebuild_id = rebuild.rebuild_id AND rebuild.projection = p_name
      AND rebuild.project_id IS NULL;
    DELETE FROM ledger.rebuild WHERE rebuild.projection = p_name AND rebuild.project_id IS NULL;
    DELETE FROM ledger.projection WHERE projection.name = p_name;
  END IF;
END $$;
