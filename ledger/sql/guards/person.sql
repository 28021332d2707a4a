-- A name as persons are compared: compatible characters made one, without regard to case and
-- without characters that are not seen, so that a look-alike does not pass for another person.
CREATE OR REPLACE FUNCTION ledger.person(p_name text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT lower(regexp_replace(normalize(p_name, NFKC), concat('^\s+|\s+$|',
    '[\u00AD\u034F\u061C\u180E\u200B-\u200F\u202A-\u202E\u2060-\u206F\uFE00-\uFE0F\uFEFF]'),
    '', 'g'))
$$;
