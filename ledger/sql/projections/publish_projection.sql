-- Makes the view under which the current version of a projection is read: its columns, and what is
-- derived from them. Anyone who reads the view runs what is derived, so only expressions over the
-- row are allowed (ledger.check_derived). Needs the right read or admin in all projects.
CREATE OR REPLACE FUNCTION ledger.publish_projection(
  p_name text, p_version int, p_columns text[], p_derived text[], p_expressions text[]
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  columns text;
  derived text;
BEGIN
  PERFORM ledger.check_access('*', '{read,admin}');
  PERFORM ledger.check_projection_name('projection', p_name);
  SELECT string_agg(
      quote_ident(ledger.check_projection_name('column', kept.name)), ', ' ORDER BY kept.place)
    INTO columns FROM unnest(p_columns) WITH ORDINALITY AS kept (name, place);
  SELECT string_agg(format('(%s) AS %I', ledger.check_derived(added.expression, p_columns),
      ledger.check_projection_name('derived column', added.name)), ', ' ORDER BY added.place)
    INTO derived
    FROM unnest(p_derived, p_expressions) WITH ORDINALITY AS added (name, expression, place);
  BEGIN
    EXECUTE format('CREATE OR REPLACE VIEW projection.%I WITH (security_invoker = true) AS '
      'SELECT %s FROM projection.%I',
      p_name, concat_ws(', ', columns, derived), format('%s_v%s', p_name, p_version));
  EXCEPTION WHEN syntax_error_or_access_rule_violation THEN
    RAISE EXCEPTION 'projection % with the derived columns %: %', quote_literal(p_name),
      coalesce(derived, 'none'), SQLERRM USING ERRCODE = SQLSTATE;
  END;
  EXECUTE format('GRANT SELECT ON projection.%I '
    'TO runfold_reader, runfold_worker, runfold_projector', p_name);
END $$;
