-- Makes the table of a projection, or the shadow that a rebuild fills. The ledger's owner owns it,
-- and runfold_projector may only read, add and change its rows: nobody can plant a trigger, a rule
-- or a column in what the owner writes to. A reader sees the rows of its projects; of a table
-- without project_id nothing, unless it may read them all, as a projector must. A projector writes
-- in READ COMMITTED alone: an older snapshot would show a right that was revoked since. Needs the
-- right read or admin in all projects. No caller's setting says where the table lies.
CREATE OR REPLACE FUNCTION ledger.make_projection_table(
  p_table text, p_columns text[], p_types text[], p_required text[], p_key text[]
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET default_tablespace = ''
AS $$
DECLARE
  types CONSTANT text[] := ARRAY['text', 'int', 'bigint', 'numeric', 'boolean', 'uuid', 'date',
    'timestamptz', 'interval', 'bytea', 'text[]'];
  name CONSTANT text := '[a-z][a-z0-9_]{0,40}';
  everywhere CONSTANT text := '(SELECT ledger.projects_with(''read'', ''audit'')) IS NULL';
  in_project CONSTANT text :=
    'project_id = ANY ((SELECT ledger.projects_seen(''read'', ''audit''))::text[])';
  columns text;
  key text;
BEGIN
  PERFORM ledger.check_access('*', '{read,admin}');
  PERFORM ledger.check_projection_name('table of a projection', p_table,
    name || '_v[0-9]{1,5}|rebuild_[0-9]{1,9}_of_' || name);
  IF cardinality(p_columns) IS DISTINCT FROM cardinality(p_types) OR NOT p_types <@ types
    OR NOT p_required <@ p_columns OR NOT p_key <@ p_columns OR cardinality(p_key) = 0 THEN
    RAISE EXCEPTION 'the columns of table % do not fit together', p_table
      USING ERRCODE = '22023',
        HINT = 'Each column has one of these types: ' || array_to_string(types, ', ');
  END IF;
  SELECT string_agg(format('%I %s%s',
      ledger.check_projection_name('column', listed.name, '[a-z][a-z0-9_]{0,49}'), listed.type,
      CASE WHEN listed.name = ANY (p_required) THEN ' NOT NULL' ELSE '' END),
      ', ' ORDER BY listed.place)
    INTO columns FROM unnest(p_columns, p_types) WITH ORDINALITY AS listed (name, type, place);
  SELECT string_agg(quote_ident(keyed.name), ', ' ORDER BY keyed.place)
    INTO key FROM unnest(p_key) WITH ORDINALITY AS keyed (name, place);
  EXECUTE format('CREATE TABLE projection.%I (%s, PRIMARY KEY (%s))', p_table, columns, key);
  EXECUTE format('GRANT SELECT ON projection.%I '
    'TO runfold_reader, runfold_worker, runfold_projector', p_table);
  -- UPDATE of columns, and no DELETE: who has either of the table may lock it against readers.
  EXECUTE format('GRANT INSERT, UPDATE (%s) ON projection.%I TO runfold_projector',
    (SELECT string_agg(quote_ident(listed.name), ', ') FROM unnest(p_columns) AS listed (name)),
    p_table);
  EXECUTE format('ALTER TABLE projection.%I ENABLE ROW LEVEL SECURITY', p_table);
  EXECUTE format('CREATE POLICY seen ON projection.%I FOR SELECT USING (%s)', p_table,
    CASE WHEN 'project_id' = ANY (p_key) THEN in_project
      WHEN 'project_id' = ANY (p_columns) THEN everywhere || ' OR ' || in_project
      ELSE everywhere END);
  EXECUTE format('CREATE POLICY kept ON projection.%I TO runfold_projector USING (%s)', p_table,
    everywhere || ' AND current_setting(''transaction_isolation'') = ''read committed''');
END $$;
