-- Refuses content that Python refuses, so that every reader can read what is stored. Looks closely
-- only where a cheap look gives a reason to: an escape, many brackets, many digits.
-- Returns true, so that a caller can assign it: an assignment costs no query. Internal to what
-- appends.
CREATE OR REPLACE FUNCTION ledger.check_content(p_bodies text[]) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  joined text;
  doubtful boolean;
  body text;
  problem text;
BEGIN
  IF pg_column_size(p_bodies) > 268435456 THEN
    RAISE EXCEPTION 'more than 256 MB of content in one call' USING ERRCODE = '54000';
  END IF;
  joined := array_to_string(p_bodies, '');
  doubtful := joined ~ E'\\\\u|[0-9][eE][+]?[0-9]{3}';
  FOREACH body IN ARRAY coalesce(p_bodies, '{}') LOOP
    CONTINUE WHEN body IS NULL OR NOT doubtful AND left(body, 1) = '{' AND (
      octet_length(body) < 66
      OR octet_length(body) <= 16777216
        AND length(body) - length(translate(body, '[{', '')) <= 33
        AND (octet_length(body) < 250 OR body !~ '[0-9]{250}')
    );
    problem := ledger.content_problem(body);
    IF problem IS NOT NULL THEN
      RAISE EXCEPTION 'content % %', quote_literal(left(body, 40)), problem USING ERRCODE = '22023';
    END IF;
  END LOOP;
  RETURN true;
END $$;
