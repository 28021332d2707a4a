-- How many persons must approve a request, by its content; null for one. Internal to
-- ledger.transition.
CREATE OR REPLACE FUNCTION ledger.approvals_asked(p_body text) RETURNS int
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  asked CONSTANT text := p_body::json ->> 'approvals';
BEGIN
  IF asked !~ '^([1-9]|10)$' THEN
    RAISE EXCEPTION 'approvals % must be a whole number from 1 to 10', quote_literal(asked)
      USING ERRCODE = '22023';
  END IF;
  RETURN nullif(asked::int, 1);
END $$;
