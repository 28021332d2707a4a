-- Raises as ledger.check_access promises, for a credential that is not the owner, by all the grants
-- that hold now. That there are all projects (*) is no secret: there the error is RF403 always.
CREATE OR REPLACE FUNCTION ledger.check_grants(p_project text, p_rights text[], p_actors text[])
  RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET jit = off
AS $$
DECLARE
  writer text := ledger.credential();
  place CONSTANT text :=
    CASE WHEN p_project = '*' THEN 'all projects' ELSE 'project ' || p_project END;
  held text[] := '{}';
  speaks_for text[] := '{}';
  given record;
  stranger text;
BEGIN
  IF session_user ~ '^(token|user):' THEN
    RAISE EXCEPTION 'login % has a name that is reserved for API tokens and users', session_user
      USING ERRCODE = 'RF403';
  END IF;
  FOR given IN
    SELECT granted.rights, granted.actors FROM ledger.access_grant AS granted
    WHERE granted.credential = writer AND granted.project_id IN (p_project, '*')
      AND (granted.until IS NULL OR granted.until > ledger.now())
  LOOP
    held := held || given.rights;
    IF p_rights && given.rights THEN
      speaks_for := speaks_for || given.actors;
    END IF;
  END LOOP;
  IF held = '{}' AND p_project <> '*' THEN
    RAISE EXCEPTION 'project % does not exist, or % has no access to it', p_project, writer
      USING ERRCODE = 'RF404';
  END IF;
  IF NOT p_rights && held THEN
    RAISE EXCEPTION '% lacks the right % in %', writer, array_to_string(p_rights, ' or '), place
      USING ERRCODE = 'RF403', DETAIL = 'access';
  END IF;
  SELECT actor INTO stranger FROM unnest(p_actors) AS actor
  WHERE actor IS NOT NULL AND NOT EXISTS (
    SELECT FROM unnest(speaks_for) AS known
    WHERE actor = known
      OR right(known, 1) = '*' AND starts_with(actor, left(known, length(known) - 1)))
  LIMIT 1;
  IF stranger IS NOT NULL THEN
    RAISE EXCEPTION '% may not speak for % in %, only for %', writer, stranger, place,
      array_to_string(speaks_for, ', ') USING ERRCODE = 'RF403', DETAIL = 'access';
  END IF;
END $$;
