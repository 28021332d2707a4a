-- Puts the table that a rebuild filled in the place of a projection's, and keeps that one as
-- replaced_<rebuild>_of_<name>, whose name it returns. Needs the right read or admin in all
-- projects. Locks: the row of ledger.projection, which the caller holds; then the view and both
-- tables, for which it waits as long as the caller's lock_timeout.
CREATE OR REPLACE FUNCTION ledger.exchange_projection_table(
  p_name text, p_version int, p_rebuild int
) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  live text;
  next CONSTANT text := format('%s_v%s', p_name, p_version);
  shadow CONSTANT text := format('rebuild_%s_of_%s', p_rebuild, p_name);
  replaced CONSTANT text := format('replaced_%s_of_%s', p_rebuild, p_name);
BEGIN
  PERFORM ledger.check_access('*', '{read,admin}');
  PERFORM ledger.check_projection_name('projection', p_name);
  SELECT format('%s_v%s', projection.name, projection.version) INTO live
  FROM ledger.projection WHERE projection.name = p_name FOR UPDATE;
  -- The view first, as its readers do: they hold it while they wait for its table.
  IF to_regclass(format('projection.%I', p_name)) IS NOT NULL THEN
    EXECUTE format('LOCK TABLE projection.%I', p_name);
  END IF;
  IF live IS DISTINCT FROM next THEN
    EXECUTE format('DROP VIEW IF EXISTS projection.%I', p_name);
  END IF;
  EXECUTE format('ALTER TABLE IF EXISTS projection.%I RENAME TO %I', live, replaced);
  EXECUTE format('ALTER TABLE projection.%I RENAME TO %I', shadow, next);
  DELETE FROM ledger.projection_aside AS aside WHERE aside.relation = 'projection.' || live;
  UPDATE ledger.projection_aside AS aside SET relation = 'projection.' || next
  WHERE aside.relation = 'projection.' || shadow;
  RETURN 'projection.' || replaced;
END $$;
