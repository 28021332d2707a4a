-- Refuses names that Python refuses (ledger/validation.py, check_text): each has 1 to p_limit
-- characters, none of them a control or bidirectional mark; with p_trimmed no blank at its ends,
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
  blank constant text := E'[ \\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]';
  control constant text :=
    E'[\\u0001-\\u001f\\u007f-\\u009f\\u200b\\u202a-\\u202e\\u2066-\\u2069\\ufeff]';
  joined text;
  doubtful boolean;
  value text;
BEGIN
  IF cardinality(p_values) > 40000 THEN
    RAISE EXCEPTION 'a call takes at most 10,000 commands: split it' USING ERRCODE = '22023';
  END IF;
  IF array_ndims(p_values) > 1 OR array_lower(p_values, 1) <> 1 THEN
    RAISE EXCEPTION '% must be a plain list that begins at 1',
      quote_literal(left(p_values::text, 80)) USING ERRCODE = '22023';
  END IF;
  -- One test of all, joined by a character of private use: it may suspect more than are wrong.
  joined := array_to_string(p_values, E'\uE000');
  doubtful := joined ~ control
    OR p_trimmed AND joined ~ (E'(^|\\ue000)' || blank || '|' || blank || E'(\\ue000|$)');
  FOREACH value IN ARRAY coalesce(p_values, '{}') LOOP
    CONTINUE WHEN value IS NULL OR NOT doubtful AND length(value) BETWEEN 1 AND p_limit;
    IF length(value) NOT BETWEEN 1 AND p_limit THEN
      RAISE EXCEPTION '% must have 1 to % characters, not %',
        quote_literal(left(value, 80)), p_limit, length(value) USING ERRCODE = '22023';
    END IF;
    IF value ~ control THEN
      RAISE EXCEPTION '% must not contain control characters', quote_literal(value)
        USING ERRCODE = '22023';
    END IF;
    IF p_trimmed AND value ~ ('^' || blank || '|' || blank || '$') THEN
      RAISE EXCEPTION '% must not begin or end with a blank', quote_literal(value)
        USING ERRCODE = '22023';
    END IF;
  END LOOP;
  RETURN true;
END $$;
