-- Refuses the content of a request for an approval whose conditions Python refuses
-- (ledger/commands.py): of the wrong type they would bind nobody. Returns how many persons must
-- approve, null for one. Internal to ledger.transition.
CREATE OR REPLACE FUNCTION ledger.check_request(p_body text) RETURNS int
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  content CONSTANT json := p_body::json;
  checked CONSTANT boolean := ledger.check_texts(ARRAY[content ->> 'role']);
  wrong text;
BEGIN
  SELECT format('%s %s', part.name, part.value) INTO wrong FROM json_each(content)
    AS part (name, value)
  WHERE json_typeof(part.value) <> 'null' AND CASE
    WHEN part.name IN ('prompt', 'role', 'shown_sha256') THEN json_typeof(part.value) <> 'string'
    WHEN part.name = 'other_person' THEN json_typeof(part.value) <> 'boolean'
    WHEN part.name = 'based_on' THEN json_typeof(part.value) <> 'number'
    WHEN part.name = 'approvals' THEN part.value::text !~ '^([1-9]|10)$'
  END;
  IF wrong IS NOT NULL THEN
    RAISE EXCEPTION 'a request has a prompt, a role and a digest, which are texts, other_person, '
      'which is true or false, based_on, a version, and approvals from 1 to 10, not %',
      left(wrong, 80) USING ERRCODE = '22023';
  END IF;
  RETURN nullif((content ->> 'approvals')::int, 1);
END $$;
