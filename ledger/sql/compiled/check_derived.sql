-- Compiled from projections/declared/derived.py by `make sql`; do not edit.
-- Refuses a derived column that is more than an expression over the row: readers run it.
CREATE OR REPLACE FUNCTION ledger.check_derived(p_expression text, p_columns text[]) RETURNS text
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  words CONSTANT text[] := ARRAY['and', 'between', 'bigint', 'case', 'date', 'else', 'end', 'false',
    'float8', 'in', 'int', 'interval', 'is', 'like', 'not', 'null', 'numeric', 'or', 'text', 'then',
    'timestamptz', 'true', 'when', 'abs', 'ceil', 'coalesce', 'floor', 'greatest', 'least',
    'ledger.now', 'length', 'lower', 'nullif', 'round', 'upper'];
  rest text := regexp_replace(p_expression, '''[^'']*''', '''''', 'g');
  token text[];
BEGIN
  rest := regexp_replace(rest, E'extract\\s*\\(\\s*epoch\\s+from\\s', 'abs(', 'gi');
  rest := regexp_replace(rest, E'distinct\\s+from\\s', '= ', 'gi');
  IF p_expression IS NULL OR length(p_expression) > 1000 OR strpos(p_expression, E'\\') > 0
    OR rest ~ E'[^A-Za-z0-9_.,()+*/<>=|''\\s:-]|--|/\\*' THEN
    RAISE EXCEPTION 'a derived column must be an expression over the row, not %', p_expression
      USING ERRCODE = '22023';
  END IF;
  FOR token IN SELECT regexp_matches(rest, E'([A-Za-z0-9_.]+)\\s*(\\(?)', 'g') LOOP
    CONTINUE WHEN token[1] ~ E'^[0-9]+(\\.[0-9]+)?$' OR lower(token[1]) = ANY (words);
    IF token[1] <> ALL (p_columns) OR token[2] <> '' OR EXISTS (
      SELECT FROM pg_get_keywords() AS keyword
      WHERE keyword.word = token[1] AND keyword.catcode IN ('R', 'T')) THEN
      RAISE EXCEPTION '% may not be in a derived column: %', token[1], p_expression
        USING ERRCODE = '22023';
    END IF;
  END LOOP;
  RETURN p_expression;
END $$;
