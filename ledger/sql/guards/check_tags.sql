-- Refuses tags that Python refuses (ledger/commands.py): at most 50 to a run, each a text as of
-- check_texts. Each element is the literal of an array. Internal to ledger.submit.
CREATE OR REPLACE FUNCTION ledger.check_tags(p_tags text[]) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  literal text;
  checked boolean;
BEGIN
  FOREACH literal IN ARRAY coalesce(p_tags, '{}') LOOP
    checked := ledger.check_texts(literal::text[]);
    IF cardinality(literal::text[]) > 50 THEN
      RAISE EXCEPTION 'at most 50 tags to a run' USING ERRCODE = '22023';
    END IF;
    IF array_position(literal::text[], NULL) IS NOT NULL THEN
      RAISE EXCEPTION 'a tag must be text' USING ERRCODE = '22023';
    END IF;
  END LOOP;
  RETURN true;
END $$;
