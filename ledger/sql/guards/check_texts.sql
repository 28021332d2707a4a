-- Refuses names that Python refuses (ledger/validation.py, check_text): each has 1 to p_limit
-- characters, none of them a control or a sign of direction; with p_trimmed no blank at its ends,
-- which would make one name look like two (check_trimmed). Nulls pass. Returns true, so that a
-- caller can assign it: an assignment of a plain expression costs no query. Internal to the
-- operations.
CREATE OR REPLACE FUNCTION ledger.check_texts(
  p_values text[], p_limit int DEFAULT 200, p_trimmed boolean DEFAULT false
) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  value text;
BEGIN
  IF cardinality(p_values) > 40000 THEN
    RAISE EXCEPTION 'a call takes at most 10,000 commands: split it' USING ERRCODE = '22023';
  END IF;
  FOREACH value IN ARRAY coalesce(p_values, '{}') LOOP
    IF length(value) NOT BETWEEN 1 AND p_limit THEN
      RAISE EXCEPTION '% must have 1 to % characters, not %',
        quote_literal(left(value, 80)), p_limit, length(value) USING ERRCODE = '22023';
    END IF;
    IF value ~ '[\u0001-\u001f\u007f-\u009f\u200b\u202a-\u202e\u2066-\u2069\ufeff]' THEN
      RAISE EXCEPTION '% must not contain control characters', quote_literal(value)
        USING ERRCODE = '22023';
    END IF;
    IF p_trimmed AND value ~ '^[ \u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]|[ \u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]$'
    THEN
      RAISE EXCEPTION '% must not begin or end with a blank', quote_literal(value)
        USING ERRCODE = '22023';
    END IF;
  END LOOP;
  RETURN true;
END $$;
