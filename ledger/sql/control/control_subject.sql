-- Returns the subject of an event of the control history: the noun for the row, such as webhook,
-- and the values of its key columns. Internal to what writes the history; verify computes it
-- independently.
CREATE OR REPLACE FUNCTION ledger.control_subject(p_noun text, p_keys text, p_row jsonb)
  RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT p_noun || ':' || string_agg(p_row ->> key_column.key, ':' ORDER BY key_column.place)
  FROM unnest(string_to_array(p_keys, ' ')) WITH ORDINALITY AS key_column (key, place)
$$;
