-- A name as persons are compared, so that a look-alike does not pass for another person:
-- compatible characters made one, without regard to case, with single blanks and without
-- invisible characters. The database's own locale may know the case of ASCII letters only, or pair
-- an I with a dotless i, so another that every server has is asked.
CREATE OR REPLACE FUNCTION ledger.person(p_name text) RETURNS text
LANGUAGE plpgsql STABLE STRICT
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  unseen CONSTANT text := concat(
    E'[\\u00AD\\u034F\\u0600-\\u0605\\u061C\\u06DD\\u070F\\u0890\\u0891\\u08E2\\u115F\\u1160',
    E'\\u17B4\\u17B5\\u180B-\\u180F\\u200B-\\u200F\\u202A-\\u202E\\u2060-\\u206F\\u2800\\u3164',
    E'\\uFE00-\\uFE0F\\uFEFF\\uFFA0\\uFFF0-\\uFFFB\\U000110BD\\U000110CD',
    E'\\U00013430-\\U0001343F\\U0001BCA0-\\U0001BCA3\\U0001D173-\\U0001D17A',
    E'\\U000E0000-\\U000E0FFF]');
  name text := normalize(regexp_replace(p_name, unseen, '', 'g'), NFKC);
  other text;
BEGIN
  name := btrim(regexp_replace(name, E'\\s+', ' ', 'g'));
  SELECT format('SELECT lower($1 COLLATE %I.%I)', 'pg_catalog', known.collname) INTO other
  FROM pg_collation AS known
  WHERE known.collname IN ('pg_c_utf8', 'C.utf8', 'und-x-icu')
    AND known.collencoding IN (-1, pg_char_to_encoding('UTF8'))
  ORDER BY known.collname DESC LIMIT 1;
  EXECUTE coalesce(other, 'SELECT lower($1)') INTO name USING name;
  RETURN normalize(replace(replace(name, E'\u00DF', 'ss'), E'\u03C2', E'\u03C3'), NFKC);
END $$;
