-- Puts the table that a rebuild filled in the place of a projection's, and keeps that one as replaced_<rebuild>_of_<name>.
-- Locks: the row of ledger.projection, which the caller holds; then both tables, for as long as the caller's lock_timeout.
CREATE OR REPLACE FUNCTION ledger.exchange_projection_table(p_name text, p_version int, p_rebuild int) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  installed int;
  shadow CONSTANT text := format('rebuild_%s_of_%s', p_rebuild, p_name);
  replaced CONSTANT text := format('replaced_%s_of_%s', p_rebuild, p_name);
BEGIN
  PERFORM ledger.check_projection_name('projection', p_name);
  SELECT p.version INTO installed FROM ledger.projection AS p WHERE p.name = p_name FOR UPDATE;
  IF installed IS DISTINCT FROM p_version THEN
    EXECUTE format('DROP VIEW IF EXISTS projection.%I', p_name);
  END IF;
  EXECUTE format('ALTER TABLE IF EXISTS projection.%I RENAME TO %I', format('%s_v%s', p_name, installed), replaced);
  EXECUTE format('ALTER TABLE projection.%I RENAME TO %I', shadow, format('%s_v%s', p_name, p_version));
  DELETE FROM ledger.projection_aside AS a WHERE a.relation = format('projection.%s_v%s', p_name, installed);
  UPDATE ledger.projection_aside AS a SET relation = format('projection.%s_v%s', p_name, p_version)
    WHERE a.relation = 'projection.' || shadow;
  RETURN 'projection.' || replaced;
END $$;
