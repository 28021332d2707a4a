-- Refuses content that would be taken and could not be read: more than 256 MB in one call, or the escape for NUL, which type
-- json takes and every look into the value fails on. Internal to what appends.
CREATE OR REPLACE FUNCTION ledger.check_content(p_bodies text[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF pg_column_size(p_bodies) > 268435456 THEN
    RAISE EXCEPTION 'more than 256 MB of content in one call' USING ERRCODE = '54000';
  END IF;
  IF strpos(array_to_string(p_bodies, ''), '\u0000') > 0 THEN -- perhaps: after another backslash it is text
    PERFORM u.body::jsonb FROM unnest(p_bodies) AS u (body);
  END IF;
END $$;
