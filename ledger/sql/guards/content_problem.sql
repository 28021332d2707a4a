-- Says what is wrong with one payload that check_content has doubts about; null if nothing is. The
-- limits are Python's (ledger/payload.py): an object whose members are at most 32 levels deep, with
-- whole numbers of at most 1,024 bits. What type jsonb does not take raises its error.
CREATE OR REPLACE FUNCTION ledger.content_problem(p_body text) RETURNS text
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  content jsonb;
  problem text;
BEGIN
  IF octet_length(p_body) > 16777216 THEN
    RETURN 'is more than 16,777,216 bytes';
  END IF;
  BEGIN
    content := p_body::jsonb;
  EXCEPTION WHEN statement_too_complex THEN
    RETURN 'is nested deeper than 32 levels';
  END;
  IF jsonb_typeof(content) <> 'object' THEN
    RETURN 'is not an object of names and values';
  END IF;
  WITH RECURSIVE part (value, depth) AS (
    SELECT content, 0
    UNION ALL
    SELECT member.value, part.depth + 1
    FROM part
    CROSS JOIN LATERAL (
      SELECT named.value FROM jsonb_each(
        CASE jsonb_typeof(part.value) WHEN 'object' THEN part.value ELSE '{}' END) AS named
      UNION ALL
      SELECT listed.value FROM jsonb_array_elements(
        CASE jsonb_typeof(part.value) WHEN 'array' THEN part.value ELSE '[]' END) AS listed
    ) AS member
    WHERE part.depth < 34
  )
  SELECT CASE
      WHEN part.depth > 32 AND jsonb_typeof(part.value) IN ('object', 'array')
        THEN 'is nested deeper than 32 levels'
      ELSE 'has a number of more than 1,024 bits'
    END INTO problem
  FROM part
  WHERE part.depth > 32 AND jsonb_typeof(part.value) IN ('object', 'array')
    OR jsonb_typeof(part.value) = 'number' AND abs(part.value::numeric) >= 2::numeric ^ 1024
  LIMIT 1;
  RETURN problem;
END $$;
